"""Misbehaviour on purpose: how a good reply becomes one of those that real servers send."""
