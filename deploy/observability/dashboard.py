"""The Grafana dashboard: `python deploy/observability/dashboard.py` writes it anew where Grafana finds it.

A panel is a line here and fifty of JSON there.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PLACE = Path(__file__).parent / "grafana" / "dashboards" / "rugo-worker.json"
WORKERS = 'job="rugo-worker", instance=~"$instance"'
DATASOURCE = {"type": "prometheus", "uid": "prometheus"}
COLUMNS = 24


@dataclass(frozen=True)
class Panel:
    """`queries` maps a legend to PromQL, in which $w stands for the labels of the chosen workers."""

    title: str
    queries: dict[str, str]
    kind: str = "timeseries"
    unit: str = "short"
    width: int = 8
    height: int = 8
    limits: tuple[float, ...] = ()
    is_stacked: bool = False
    about: str = ""
    options: dict[str, Any] = field(default_factory=dict)


def quantiles(metric: str, *shares: float) -> dict[str, str]:
    """Return queries of a histogram's quantiles over all workers."""
    return {
        f"p{share * 100:g}": f"histogram_quantile({share}, sum by (le) (rate({metric}_bucket{{$w}}[$__rate_interval])))"
        for share in shares
    }


def stage(metric: str) -> str:
    """Return the query of a stage's mean time."""
    return f"sum(rate({metric}_sum{{$w}}[$__rate_interval])) / sum(rate({metric}_count{{$w}}[$__rate_interval]))"


ROWS: dict[str, list[Panel]] = {
    "Now": [
        Panel("Workers ready", {"": "sum(rugo_ready{$w})"}, "stat", width=3, height=4, limits=(1,)),
        Panel("Waiting records", {"": "sum(rugo_consumer_lag_records{$w})"}, "stat", width=3, height=4),
        Panel("Messages a second", {"": "sum(rate(rugo_records_in_total{$w}[$__rate_interval]))"}, "stat", width=3, height=4),
        Panel("p99 from message to label", quantiles("rugo_latency_seconds", 0.99), "stat", "s", width=3, height=4),
        Panel("Escalations in an hour", {"": "sum(increase(rugo_escalations_total{$w}[1h]))"}, "stat", width=3, height=4),
        Panel(
            "Negative messages",
            {"": 'sum(rate(rugo_tones_total{$w, tone="negative"}[1h])) / sum(rate(rugo_tones_total{$w}[1h]))'},
            "stat",
            "percentunit",
            width=3,
            height=4,
        ),
        Panel(
            "Unreadable records",
            {"": "sum(rate(rugo_dead_letters_total{$w}[1h])) / sum(rate(rugo_records_in_total{$w}[1h]))"},
            "stat",
            "percentunit",
            width=3,
            height=4,
            limits=(0.001, 0.01),
        ),
        Panel("Drift", {"": "max(rugo_drift_psi{$w})"}, "stat", width=3, height=4, limits=(0.1, 0.25)),
    ],
    "What is heard": [
        Panel(
            "Tone of the messages",
            {"{{tone}}": "sum by (tone) (rate(rugo_tones_total{$w}[$__rate_interval]))"},
            unit="percentunit",
            is_stacked=True,
            width=12,
        ),
        Panel("Escalations by reason", {"{{reason}}": "sum by (reason) (increase(rugo_escalations_total{$w}[15m]))"}, width=12),
        Panel(
            "Emotions, neutral left out",
            {"{{emotion}}": 'topk(10, sum by (emotion) (rate(rugo_labels_total{$w, emotion!="neutral"}[$__rate_interval])))'},
            unit="reqps",
            width=12,
        ),
        Panel(
            "Drift of the emotions that drift most",
            {"all": "max(rugo_drift_psi{$w})", "{{emotion}}": "topk(5, max by (emotion) (rugo_drift_emotion_psi{$w}))"},
            width=12,
            limits=(0.1, 0.25),
            about="Population stability index against the baseline: under 0.1 stable, above 0.25 changed.",
        ),
    ],
    "Flow": [
        Panel(
            "Records in and out",
            {
                "in": "sum(rate(rugo_records_in_total{$w}[$__rate_interval]))",
                "to {{topic}}": "sum by (topic) (rate(rugo_events_out_total{$w}[$__rate_interval]))",
            },
            unit="reqps",
        ),
        Panel("Waiting records by partition", {"{{partition}}": "sum by (partition) (rugo_consumer_lag_records{$w})"}),
        Panel("From message to label", quantiles("rugo_latency_seconds", 0.5, 0.95, 0.99), unit="s"),
        Panel("Dead letters by reason", {"{{reason}}": "sum by (reason) (increase(rugo_dead_letters_total{$w}[15m]))"}),
        Panel(
            "Rebalances and lost commits",
            {
                "rebalances": "sum(increase(rugo_rebalances_total{$w}[15m]))",
                "commits lost": "sum(increase(rugo_commits_lost_total{$w}[15m]))",
            },
        ),
        Panel("Partitions by worker", {"{{instance}}": "rugo_assigned_partitions{$w}"}),
    ],
    "The work": [
        Panel(
            "Mean time of a stage",
            {
                "tokenize and infer a poll": stage("rugo_inference_seconds"),
                "tokenize a poll": stage("rugo_tokenize_seconds"),
                "a micro-batch": stage("rugo_micro_batch_seconds"),
                "publish a poll": stage("rugo_publish_seconds"),
                "commit a poll": stage("rugo_commit_seconds"),
            },
            unit="s",
        ),
        Panel(
            "Texts at once",
            {"a poll's records": stage("rugo_poll_records"), "a micro-batch's texts": stage("rugo_micro_batch_texts")},
        ),
        Panel(
            "Padding's share of the tokens",
            {
                "padding": "1 - sum(rate(rugo_tokens_total{$w}[$__rate_interval])) "
                "/ sum(rate(rugo_padded_tokens_total{$w}[$__rate_interval]))"
            },
            unit="percentunit",
        ),
        Panel(
            "Short texts that the cache answers",
            {
                "of the cache": "sum(rate(rugo_cache_hits_total{$w}[$__rate_interval])) / (sum(rate(rugo_cache_hits_total"
                "{$w}[$__rate_interval])) + sum(rate(rugo_cache_misses_total{$w}[$__rate_interval])))"
            },
            unit="percentunit",
        ),
        Panel("Cores used", {"{{instance}}": "rate(process_cpu_seconds_total{$w}[$__rate_interval])"}),
        Panel("Memory", {"{{instance}}": "process_resident_memory_bytes{$w}"}, unit="bytes"),
        Panel(
            "Chats remembered, and forgotten too early",
            {
                "{{instance}}": "rugo_remembered_chats{$w}",
                "{{instance}} forgotten": "increase(rugo_crowded_out_chats_total{$w}[15m])",
            },
        ),
        Panel(
            "Models",
            {"{{instance}}: {{name}} {{version}} {{digest}}": "rugo_model_info{$w}"},
            "stat",
            options={"textMode": "name"},
        ),
        Panel(
            "Workers' versions",
            {"{{version}}, Python {{python}}": "count by (version, python) (rugo_build_info{$w})"},
            "stat",
            options={"textMode": "name"},
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    """Return the dashboard as Grafana reads it."""
    return {
        "uid": "rugo-worker",
        "title": "rugo-worker",
        "description": "Emotions and escalations of support chats, and the workers that hear them.",
        "tags": ["rugo-worker"],
        "schemaVersion": 39,
        "version": 1,
        "editable": False,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": [_instance_variable()]},
        "annotations": {"list": []},
        "panels": _panels(),
    }


def rendered() -> str:
    """Return the file's content."""
    return json.dumps(dashboard(), ensure_ascii=False, indent=1) + "\n"


def _instance_variable() -> dict[str, Any]:
    query = 'label_values(rugo_ready{job="rugo-worker"}, instance)'
    return {
        "name": "instance",
        "label": "worker",
        "type": "query",
        "datasource": DATASOURCE,
        "query": {"query": query, "refId": "instances"},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _panels() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    y = 0
    for title, panels in ROWS.items():
        place = {"x": 0, "y": y, "w": COLUMNS, "h": 1}
        found.append({"id": len(found) + 1, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []})
        y, x, line_height = y + 1, 0, 0
        for panel in panels:
            if x + panel.width > COLUMNS:
                y, x = y + line_height, 0
            line_height = panel.height
            place = {"x": x, "y": y, "w": panel.width, "h": panel.height}
            found.append(_panel(panel, number=len(found) + 1, place=place))
            x += panel.width
        y += panels[-1].height
    return found


def _panel(panel: Panel, *, number: int, place: dict[str, int]) -> dict[str, Any]:
    colours = ["green", "yellow", "red"] if len(panel.limits) > 1 else ["red", "green"]
    steps: list[dict[str, Any]] = [{"color": colours[0] if panel.limits else "text", "value": None}]
    steps += [{"color": colour, "value": limit} for colour, limit in zip(colours[1:], panel.limits, strict=False)]
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, "thresholds": {"mode": "absolute", "steps": steps}}
    options = panel.options
    if panel.kind == "timeseries":
        stacking = {"mode": "percent" if panel.is_stacked else "none", "group": "A"}
        fill = 60 if panel.is_stacked else 8
        lines = {"mode": "dashed" if panel.limits else "off"}
        defaults["custom"] = {"fillOpacity": fill, "lineWidth": 1, "stacking": stacking, "thresholdsStyle": lines}
        options = {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi", "sort": "desc"}}
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": DATASOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        "targets": [
            {
                "refId": chr(ord("A") + number),
                "datasource": DATASOURCE,
                "legendFormat": legend,
                "expr": query.replace("$w", WORKERS),
            }
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    PLACE.write_text(rendered(), "utf-8")
