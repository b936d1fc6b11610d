// Draws a dashboard's JSON with Grafana's own UI components, from a Prometheus. It is no Grafana: variables are given in
// the address, and of the transformations it knows the two that our tables use.
import 'uplot/dist/uPlot.min.css';
import { css, Global } from '@emotion/react';
import {
  createTheme, dateTime, FieldColorModeId, FieldType, getDisplayProcessor, ThemeContext, toDataFrame, VizOrientation,
  type DataFrame, type Field,
} from '@grafana/data';
import { initPluginTranslations } from '@grafana/i18n';
import { BarGaugeDisplayMode, BarGaugeNamePlacement, BarGaugeValueMode, LegendDisplayMode } from '@grafana/schema';
import {
  BarGauge, BigValue, BigValueColorMode, BigValueGraphMode, BigValueJustifyMode, BigValueTextMode, PanelChrome, Table,
  TimeSeries,
} from '@grafana/ui';
import { createRoot } from 'react-dom/client';

const CELL_HEIGHT = 36, GAP = 8, COLUMNS = 24, POINTS = 400;
const asked = new URLSearchParams(location.search);
const from = Number(asked.get('from')), to = Number(asked.get('to'));
const step = Math.max(1, Math.round((to - from) / POINTS));
const theme = createTheme({ colors: { mode: asked.get('theme') === 'light' ? 'light' : 'dark' } });

type Sample = [number, string];
type Series = { metric: Record<string, string>; values?: Sample[]; value?: Sample };
type Target = { expr: string; refId: string; legendFormat: string; instant: boolean };

function filledIn(expression: string): string {
  const values: Record<string, string> = { __rate_interval: asked.get('interval')!, __range: `${to - from}s` };
  return expression.replace(/\$(\w+)/g, (all, name) => values[name] ?? asked.get(`var-${name}`) ?? all);
}

async function query(target: Target): Promise<Series[]> {
  const parameters = new URLSearchParams({ query: filledIn(target.expr) });
  if (target.instant) {
    parameters.set('time', String(to));
  } else {
    for (const [name, value] of Object.entries({ start: from, end: to, step })) parameters.set(name, String(value));
  }
  const kind = target.instant ? 'query' : 'query_range';
  const answer = await (await fetch(`${asked.get('prometheus')}/api/v1/${kind}?${parameters}`)).json();
  if (answer.status !== 'success') throw new Error(`${target.expr}: ${answer.error}`);
  return answer.data.result;
}

const legend = (target: Target, series: Series) =>
  target.legendFormat.replace(/{{(\w+)}}/g, (_, label) => series.metric[label] ?? '');

function settings(panel: any, name: string) {
  const given = panel.fieldConfig.defaults;
  const mode = panel.type === 'stat' ? FieldColorModeId.Thresholds : FieldColorModeId.PaletteClassic;
  const override = panel.fieldConfig.overrides.find((each: any) => each.matcher.options === name);
  return { ...given, color: override?.properties.find((each: any) => each.id === 'color')?.value ?? { mode } };
}

function shown(field: Field, seriesIndex: number): Field {
  field.state = { seriesIndex };
  field.display = getDisplayProcessor({ field, theme, timeZone: 'utc' });
  return field;
}

function frames(panel: any, answers: Series[][]): DataFrame[] {
  let index = 0;
  return panel.targets.flatMap((target: Target, number: number) => answers[number].map(series => {
    const name = legend(target, series);
    const known = new Map((series.values ?? [series.value!]).map(([time, value]) => [time, Number(value)]));
    // A gap in the data is a gap in the line.
    const times = target.instant ? [...known.keys()] : Array.from({ length: Math.floor((to - from) / step) + 1 }, (_, i) => from + i * step);
    const frame = toDataFrame({
      name, refId: target.refId,
      fields: [
        { name: 'Time', type: FieldType.time, values: times.map(time => 1000 * time) },
        { name: 'Value', type: FieldType.number, config: { ...settings(panel, name), displayName: name },
          values: times.map(time => known.get(time) ?? null) },
      ],
    });
    shown(frame.fields[0], 0);
    shown(frame.fields[1], index++);
    return frame;
  }));
}

function tableFrame(panel: any, answers: Series[][]): DataFrame {
  const { excludeByName, indexByName, renameByName } = panel.transformations[1].options;
  const rows = new Map<string, Record<string, unknown>>();
  panel.targets.forEach((target: Target, number: number) => {
    for (const series of answers[number]) {
      const key = `${series.metric.namespace}/${series.metric.experiment}`;
      const row = rows.get(key) ?? {};
      rows.set(key, { ...row, ...series.metric, [`Value #${target.refId}`]: Number(series.value![1]) });
    }
  });
  const names = Object.keys(indexByName).filter(name => !excludeByName[name])
    .sort((a, b) => indexByName[a] - indexByName[b]);
  const frame = toDataFrame({
    fields: names.map(name => ({
      name, config: { displayName: renameByName[name] },
      type: name.startsWith('Value') ? FieldType.number : FieldType.string,
      values: [...rows.values()].map(row => row[name] ?? null),
    })),
  });
  for (const override of panel.fieldConfig.overrides) {
    const field = frame.fields.find(each => each.config.displayName === override.matcher.options);
    for (const { id, value } of override.properties) if (field && id !== 'links') Object.assign(field.config, { [id]: value });
  }
  frame.fields.forEach(shown);
  return frame;
}

const timeRange = {
  from: dateTime(1000 * from), to: dateTime(1000 * to), raw: { from: dateTime(1000 * from), to: dateTime(1000 * to) },
};

function Content({ panel, answers, width, height }: any) {
  if (panel.type === 'table') {
    return <Table data={tableFrame(panel, answers)} width={width - 16} height={height} columnMinWidth={60} />;
  }
  const data = frames(panel, answers);
  if (!data.length) return <div className="none">No data</div>;
  if (panel.type === 'timeseries') {
    const options = { ...panel.options.legend, displayMode: LegendDisplayMode.List };
    return <TimeSeries frames={data} timeRange={timeRange} timeZone="utc" width={width} height={height} legend={options} />;
  }
  const fields = data.map(frame => frame.fields[1]);
  if (panel.type === 'bargauge') {
    const row = Math.min(48, height / fields.length);
    return <>{fields.map((field, i) => (
      <BarGauge key={i} theme={theme} width={width} height={row - 6} field={field.config} display={field.display}
        value={{ ...field.display!(field.values.at(-1)), title: field.config.displayName }}
        orientation={VizOrientation.Horizontal} displayMode={BarGaugeDisplayMode.Basic}
        valueDisplayMode={BarGaugeValueMode.Text} namePlacement={BarGaugeNamePlacement.Left} showUnfilled />
    ))}</>;
  }
  const each = width / fields.length;
  return <div style={{ display: 'flex' }}>{fields.map((field, i) => (
    <BigValue key={i} theme={theme} width={each} height={height} graphMode={BigValueGraphMode.None}
      colorMode={panel.options.colorMode as BigValueColorMode} justifyMode={BigValueJustifyMode.Auto}
      textMode={panel.options.textMode as BigValueTextMode}
      value={{ ...field.display!(field.values.at(-1)), title: field.config.displayName }} />
  ))}</div>;
}

function Dashboard({ board, answers, width }: any) {
  const column = width / COLUMNS;
  const bottom = Math.max(...board.panels.map((panel: any) => panel.gridPos.y + panel.gridPos.h));
  return (
    <div style={{ position: 'relative', width, height: bottom * CELL_HEIGHT }}>
      {board.panels.map((panel: any) => {
        const { x, y, w, h } = panel.gridPos;
        const place = { position: 'absolute', left: x * column + GAP / 2, top: y * CELL_HEIGHT + GAP / 2 } as const;
        const size = { width: w * column - GAP, height: h * CELL_HEIGHT - GAP };
        if (panel.type === 'row') return <h2 key={panel.id} style={{ ...place, ...size }}>{panel.title}</h2>;
        return (
          <div key={panel.id} style={{ ...place, ...size }}>
            <PanelChrome title={panel.title} description={panel.description} {...size}>
              {(innerWidth, innerHeight) => (
                <Content panel={panel} answers={answers[panel.id]} width={innerWidth} height={innerHeight} />
              )}
            </PanelChrome>
          </div>
        );
      })}
    </div>
  );
}

async function main() {
  await initPluginTranslations('dashboards');
  const board = await (await fetch(`${asked.get('board')}.json`)).json();
  const answers: Record<number, Series[][]> = {};
  await Promise.all(board.panels.filter((panel: any) => panel.targets).map(async (panel: any) => {
    answers[panel.id] = await Promise.all(panel.targets.map(query));
  }));
  document.title = board.title;
  const page = css`
    body { margin: 0; background: ${theme.colors.background.canvas}; color: ${theme.colors.text.primary};
      font-family: ${theme.typography.fontFamily}; font-size: 14px; }
    button { color: inherit; font: inherit; }
    h1 { font-size: 20px; font-weight: 500; margin: 0; padding: 14px 12px 4px; }
    h2 { font-size: 15px; font-weight: 500; margin: 0; padding-left: 6px; box-sizing: border-box; }
    .none { color: ${theme.colors.text.secondary}; display: grid; place-items: center; height: 100%; }
  `;
  createRoot(document.getElementById('root')!).render(
    <ThemeContext.Provider value={theme}>
      <Global styles={page} />
      <h1>{board.title}</h1>
      <Dashboard board={board} answers={answers} width={window.innerWidth} />
    </ThemeContext.Provider>,
  );
  setTimeout(() => document.body.setAttribute('data-drawn', String(board.panels.length)), 1500);
}

main().catch(error => { document.body.textContent = String(error); });
