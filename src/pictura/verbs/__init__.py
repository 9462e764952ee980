"""The verbs of the command, a file each: `ABOUT` it in one line, `EXAMPLES` that run, its `arguments`, and its
`answer`, which does it, shows it, and gives what `--json` prints. A verb imports what it needs when it answers, so that
`-h` is immediate.
"""

VERBS = (
    *("demo", "train", "evaluate", "audit", "prompts", "fit", "classify", "describe", "ask", "draw", "detect", "teach"),
    *("embed", "blend", "convert", "plan", "list"),
)
