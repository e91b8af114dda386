"""``vgcompile schema``: the JSON Schemas, for editors and for programs."""

from __future__ import annotations

from typing import Annotated, Literal

import typer


def schema(
    of: Annotated[
        Literal["model", "analysis"], typer.Argument(help="Of a YAML model, or of what analyze --json prints.")
    ] = "model",
) -> None:
    """Print a JSON Schema.

    An editor that knows it completes and checks a model whose first line is
    `# yaml-language-server: $schema=vgcompile.schema.json`.

    \b
    vgcompile schema > vgcompile.schema.json
    vgcompile schema analysis
    """
    import json

    if of == "model":
        from vgcompile.spec.schema import editor_schema

        found = editor_schema()
    else:
        from vgcompile.analysis.document import json_schema as analysis_schema

        found = analysis_schema()
    typer.echo(json.dumps(found, indent=1))
