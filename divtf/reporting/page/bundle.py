"""The charting library, Vega-Lite, as one script that goes into a page."""

import functools

# What the page's own script uses of it; the rest is left out.
_USED = "window.vegaEmbed = vegaEmbed;"


@functools.cache
def charting_library() -> str:
    """Vega-Lite, Vega and Vega-Embed as JavaScript, some 900 kB, that may stand inside <script>.

    It is put together from what `vl_convert` ships, without a network; that takes seconds, once a process.
    """
    import vl_convert  # Here, since it is large and only pages need it.

    return inside_script(vl_convert.javascript_bundle(_USED))


def inside_script(source: str) -> str:
    r"""JavaScript of the same meaning that does not end a <script>: only strings may hold such words."""
    return source.replace("</script", "<\\/script").replace("<!--", "<\\!--")
