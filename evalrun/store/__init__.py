"""Keep it: the journal, the Parquet tables and the run folder."""
