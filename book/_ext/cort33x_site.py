"""What the site needs and `_config.yml` cannot express."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from run import library_digest  # noqa: E402


def set_cache(app, config):
    """Chapters run again when the library or its data has changed."""
    place = Path(app.outdir).parent / "executed" / library_digest()
    config.nb_execution_cache_path = str(place)


def drop_thebe(app, page, template, context, doctree):
    """Jupyter Book adds a script that wants another host, and adds it twice."""
    context["script_files"] = [
        script
        for script in context["script_files"]
        if "thebe" not in f"{script} {getattr(script, 'attributes', '')}".lower()
    ]


def escape_widgets(app, page, template, context, doctree):
    """No text in a widget's state can end the script it is stored in, or open one."""
    for script in context["script_files"]:
        attributes = getattr(script, "attributes", {})
        if attributes.get("type", "").endswith("widget-state+json"):
            attributes["body"] = attributes["body"].replace("<", "\\u003c")


def setup(app):
    app.connect("config-inited", set_cache, priority=100)
    app.connect("html-page-context", drop_thebe, priority=900)
    app.connect("html-page-context", escape_widgets, priority=901)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
