"""`attnflow scale`: a trained model's logit scale at longer contexts."""

from __future__ import annotations

from attnflow.commands import run


def main(argv: list[str]) -> int:
    """`attnflow scale MODEL ...` is `attnflow run scale --model MODEL ...`."""
    model = argv[:1] if argv and not argv[0].startswith("-") else []
    return run.main(["scale", *(["--model", *model] if model else []), *argv[len(model) :]])
