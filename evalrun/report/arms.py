"""The arms of a run as every rendering lists them: number, label, colour, and whether the data tell them from the best.

A Summary enters, one ArmView an arm leaves, in the summary's order. Number, colour and shape name an arm on the whole
page, so no chart needs a legend of its own.
"""

from dataclasses import dataclass

from evalrun.records import ArmSummary, PairTest, Summary

ALPHA = 0.05
"""A pair whose adjusted p is not below this is called not separable."""

N_COLORS = 8
N_SHAPES = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class ArmView:
    """One arm, ready to be listed."""

    number: int
    """1-based place in the leaderboard; the arm's sign in every chart."""
    arm: ArmSummary
    label: str
    """Model and prompt, or the one of them that differs between arms."""
    color: int
    """Index of the model's colour, 0..N_COLORS-1."""
    shape: int
    """Index of the prompt's shape, 0..N_SHAPES-1."""
    test: PairTest | None
    """Test against the best arm; None for the best arm itself, or when none was made."""
    is_best: bool
    """True for the arm that the tests compare the others with."""
    is_tied: bool
    """True when the data do not tell this arm from the best one; for the best arm, when it has such a rival."""


def build_arm_views(summary: Summary) -> tuple[ArmView, ...]:
    """Return one view an arm, in the summary's order.

    Colours follow the models' names and shapes the prompts' names, so that they stay the same from run to run.
    """
    tests = {(test.model, test.prompt): test for test in summary.tests}
    models = sorted({arm.model for arm in summary.arms})
    prompts = sorted({arm.prompt for arm in summary.arms})
    has_tie = any(test.p_value >= ALPHA for test in summary.tests)
    views = []
    for number, arm in enumerate(summary.arms, start=1):
        test = tests.get((arm.model, arm.prompt))
        is_best = bool(summary.tests) and number == 1 and test is None
        views.append(
            ArmView(
                number=number,
                arm=arm,
                label=make_label(arm.model, arm.prompt, n_models=len(models), n_prompts=len(prompts)),
                color=models.index(arm.model) % N_COLORS,
                shape=prompts.index(arm.prompt) % N_SHAPES,
                test=test,
                is_best=is_best,
                is_tied=(is_best and has_tie) or (test is not None and test.p_value >= ALPHA),
            )
        )
    return tuple(views)


def make_label(model: str, prompt: str, *, n_models: int, n_prompts: int) -> str:
    """Return "model · prompt", or the one of them that differs between arms."""
    if n_prompts == 1:
        return model
    return prompt if n_models == 1 else f"{model} · {prompt}"
