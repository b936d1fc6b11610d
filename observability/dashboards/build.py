"""Grafana's JSON of a dashboard, by Grafana's own library."""

from __future__ import annotations

import string
from collections.abc import Callable
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builder
from grafana_foundation_sdk.builders.prometheus import Dataquery
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from observability.dashboards.panels import Board, Kind, Panel, Place, Row, Variable, lay_out

SCHEMA = 42
"""Of the dashboards that the library makes; it does not write it."""
DATASOURCE = options.DataSourceRef(type_val="prometheus", uid="${datasource}")
TAGS = ["resnet-operator"]
_GREEN, _YELLOW, _RED = "green", "yellow", "red"


def json_of(board: Board) -> str:
    """The dashboard as Grafana imports it, always the same text for the same board."""
    made = (
        builder.Dashboard(board.title)
        .uid(board.uid).description(board.description).tags(TAGS).readonly().version(1)
        .time(board.span, "now").refresh("30s").timezone("browser").tooltip(model.DashboardCursorSync.CROSSHAIR)
        .links([_to_dashboard(name) for name in board.links])
        .with_variable(builder.DatasourceVariable("datasource").label("Data source").type("prometheus"))
    )  # fmt: skip
    for variable in board.variables:
        made.with_variable(_variable(variable))
    document = made.build()
    document.schema_version = SCHEMA
    document.panels = [_placed(what, place, number) for number, (what, place) in enumerate(lay_out(board.rows), 1)]
    return JSONEncoder(sort_keys=True, indent=1).encode(document) + "\n"


def _variable(variable: Variable) -> builder.QueryVariable:
    made = (
        builder.QueryVariable(variable.name).label(variable.label).datasource(DATASOURCE)
        .query(variable.query).definition(variable.query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
    )  # fmt: skip
    if variable.several:
        everything = model.VariableOption(selected=True, text="All", value="$__all")
        made.multi(True).include_all(True).all_value(".+").current(everything)
    return made


def _to_dashboard(name: str) -> builder.DashboardLink:
    return (
        builder.DashboardLink(f"ResNet {name}").type(model.DashboardLinkType.LINK).url(f"/d/resnet-{name}")
        .include_vars(True).keep_time(True)
    )  # fmt: skip


def _placed(what: Row | Panel, place: Place, number: int) -> model.Panel | model.RowPanel:
    made: model.Panel | model.RowPanel
    made = builder.Row(what.title).build() if isinstance(what, Row) else _MAKERS[what.kind](what).build()
    made.id_val = number
    made.grid_pos = model.GridPos(x=place.x, y=place.y, w=place.width, h=place.height)
    return made


def _common(made: Any, panel: Panel) -> Any:
    """What all kinds have alike; their builders share no type."""
    made.title(panel.title).description(panel.description).datasource(DATASOURCE).unit(panel.unit)
    for ref, query in zip(string.ascii_uppercase, panel.queries, strict=False):
        target = Dataquery().ref_id(ref).datasource(DATASOURCE).expr(query.expression).legend_format(query.legend)
        if panel.kind is Kind.TABLE:
            target.format(PromQueryFormat.TABLE)
        made.with_target(target.instant() if panel.kind.instant else target.range())
    if panel.unit == "locale":
        made.decimals(1)
    for name, color in panel.colors.items():
        fixed = {"mode": "fixed", "fixedColor": color}
        made.override_by_name(name, [model.DynamicConfigValue(id_val="color", value=fixed)])
    if panel.low is not None:
        made.min(panel.low)
    if panel.high is not None:
        made.max(panel.high)
    steps = [(None, _GREEN), (panel.warn, _YELLOW), (panel.alarm, _RED)]
    thresholds = [model.Threshold(value=value, color=color) for value, color in steps[:1]]
    thresholds += [model.Threshold(value=value, color=color) for value, color in steps[1:] if value is not None]
    return made.thresholds(builder.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(thresholds))


def _stat(panel: Panel) -> stat.Panel:
    shows_names = panel.kind is Kind.NAME or len(panel.queries) > 1 or "{{" in panel.queries[0].legend
    mode = options.BigValueTextMode.NAME if panel.kind is Kind.NAME else options.BigValueTextMode.VALUE_AND_NAME
    colored = panel.warn is not None or panel.alarm is not None
    made: stat.Panel = _common(stat.Panel(), panel)
    return (
        made.reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .text_mode(mode if shows_names else options.BigValueTextMode.VALUE)
        .graph_mode(options.BigValueGraphMode.NONE)
        .color_mode(options.BigValueColorMode.VALUE if colored else options.BigValueColorMode.NONE)
    )


def _lines(panel: Panel) -> timeseries.Panel:
    made: timeseries.Panel = _common(timeseries.Panel(), panel)
    several = len(panel.queries) > 1 or "{{" in panel.queries[0].legend
    legend = common.VizLegendOptions().show_legend(several).placement(options.LegendPlacement.BOTTOM)
    made.legend(legend.display_mode(options.LegendDisplayMode.LIST))
    tooltip = common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING)
    made.tooltip(tooltip).line_width(1.5).fill_opacity(0).show_points(options.VisibilityMode.NEVER)
    if panel.kind is Kind.STEPS:
        made.line_interpolation(options.LineInterpolation.STEP_AFTER)
    if panel.kind is Kind.STACK:
        made.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL)).fill_opacity(60).line_width(0.5)
    if panel.alarm is not None:
        made.thresholds_style(common.GraphThresholdsStyleConfig().mode(options.GraphThresholdsStyleMode.DASHED))
    return made


def _bars(panel: Panel) -> bargauge.Panel:
    made: bargauge.Panel = _common(bargauge.Panel(), panel)
    return (
        made.decimals(0)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
    )


def _table(panel: Panel) -> table.Panel:
    """One row for each set of labels, one column for each query; a query without a unit of its own shows a label."""
    made: table.Panel = _common(table.Panel(), panel)
    columns = dict(zip(string.ascii_uppercase, panel.queries, strict=False))
    values = {f"Value #{ref}": query.legend for ref, query in columns.items()}
    first = next(iter(values))  # the value of the first query is always 1; its label is what it tells
    label = values.pop(first).lower()
    order = ["namespace", "experiment", label, *values]
    made.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    organize = {
        "excludeByName": {"Time": True, first: True},
        "indexByName": {name: index for index, name in enumerate(order)},
        "renameByName": {**{name: name.capitalize() for name in order[:3]}, **values},
    }
    made.with_transformation(model.DataTransformerConfig(id_val="organize", options=organize))
    for query in columns.values():
        if query.unit:
            properties = [model.DynamicConfigValue(id_val="unit", value=query.unit)]
            if query.unit == "locale":
                properties.append(model.DynamicConfigValue(id_val="decimals", value=1))
            made.override_by_name(query.legend, properties)
    if panel.link:
        url = f"/d/resnet-{panel.link}?var-namespace=${{__data.fields.Namespace}}&var-experiment=${{__value.text}}"
        link = {"title": "its dashboard", "url": url}
        made.override_by_name("Experiment", [model.DynamicConfigValue(id_val="links", value=[link])])
    return made


_MAKERS: dict[Kind, Callable[[Panel], Any]] = {
    Kind.STAT: _stat, Kind.NAME: _stat, Kind.LINES: _lines, Kind.STACK: _lines, Kind.STEPS: _lines,
    Kind.BARS: _bars, Kind.TABLE: _table,
}  # fmt: skip
