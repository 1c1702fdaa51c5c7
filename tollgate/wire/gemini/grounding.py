"""Sources of an answer: what Google's search has found, and what the model has recited.

Places in the text are counted in bytes of UTF-8 here, and in characters in the middle.
"""

from collections.abc import Iterable

from tollgate.wire import Body, Meter
from tollgate.wire.content import Citation


def read_citations(candidate: Body, texts: list[str], meter: Meter) -> tuple[Citation, ...]:
    """`texts` are those of the candidate so far. Sources without an address are named in `meter.dropped`."""
    grounding, recited = candidate.get("groundingMetadata"), candidate.get("citationMetadata")
    text = "".join(texts).encode()
    found = list(_read_grounding(grounding, text, meter)) if isinstance(grounding, dict) else []
    if isinstance(recited, dict):
        sources = recited.get("citations") or recited.get("citationSources")
        for source in sources if isinstance(sources, list) else ():
            if isinstance(source, dict) and isinstance(url := source.get("uri"), str):
                found.append(_citation(url, _said(source, "title"), source, text))
            else:
                meter.dropped.add("candidates[].citationMetadata")
    return tuple(found)


def _read_grounding(grounding: Body, text: bytes, meter: Meter) -> Iterable[Citation]:
    chunks = grounding.get("groundingChunks")
    pages = [chunk.get("web") if isinstance(chunk, dict) else None for chunk in _list(chunks)]
    if any(not isinstance(page, dict) for page in pages):  # places on a map, files of the client's own
        meter.dropped.add("candidates[].groundingMetadata.groundingChunks")
    for support in _list(grounding.get("groundingSupports")):
        if not isinstance(support, dict):
            continue
        segment = support.get("segment")
        for at in _list(support.get("groundingChunkIndices")):
            page = pages[at] if isinstance(at, int) and 0 <= at < len(pages) else None
            if isinstance(page, dict) and isinstance(url := page.get("uri"), str):
                yield _citation(url, _said(page, "title"), segment if isinstance(segment, dict) else {}, text)


def _citation(url: str, title: str, place: Body, text: bytes) -> Citation:
    start, end = place.get("startIndex"), place.get("endIndex")
    if not isinstance(end, int) or not 0 <= end <= len(text):
        return Citation(url=url, title=title, cited_text=_said(place, "text"))
    start = start if isinstance(start, int) and 0 <= start <= end else 0  # 0 is left out
    cited = text[start:end].decode(errors="replace")
    first = len(text[:start].decode(errors="replace"))
    return Citation(url=url, title=title, cited_text=cited, start=first, end=first + len(cited))


def write_grounding(citations: list[Citation], text: str) -> Body:
    """Sources and the places that they support, as `groundingMetadata`. `text` is the candidate's whole text."""
    urls: dict[str, int] = {}
    pages: list[Body] = []
    supports: list[Body] = []
    for citation in citations:
        at = urls.get(citation.url)
        if at is None:
            at = urls[citation.url] = len(pages)
            pages.append({"web": {"uri": citation.url, "title": citation.title}})
        start, end = citation.start, citation.end
        segment: Body = {"text": citation.cited_text} if citation.cited_text else {}
        if start is not None and end is not None and 0 <= start <= end <= len(text):
            begin = len(text[:start].encode())
            segment |= {"startIndex": begin, "endIndex": begin + len(text[start:end].encode())}
        supports.append({"segment": segment, "groundingChunkIndices": [at]})
    return {"groundingChunks": pages, "groundingSupports": supports}


def _said(source: Body, field: str) -> str:
    value = source.get(field)
    return value if isinstance(value, str) else ""


def _list(value: object) -> list[object]:
    return value if isinstance(value, list) else []
