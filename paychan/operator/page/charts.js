/** Small pictures, as SVG. Each has a name that says in words what it shows. */

import { h, s } from "./dom.js";
import { brief, clock } from "./show.js";

const NARROW = 340;
const WIDE = 900;
const HEIGHT = 150;
const LEFT = 58;
const BOTTOM = 22;
const TOP = 10;

/** Return lines over time. series: [{name, points: [[milliseconds, number or null]]}]; format: of a number on the axis. */
export function lines(label, series, { format = brief, from, to }) {
  const width = NARROW;
  const most = niceAbove(Math.max(0, ...series.flatMap((one) => one.points.map(([, value]) => value ?? 0))));
  const x = (at) => LEFT + ((at - from) / (to - from)) * (width - LEFT - 8);
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - TOP);
  const paths = series.map((one, number) => {
    let path = "";
    let isDown = false;
    for (const [at, value] of one.points) {
      if (value === null || at < from) isDown = false;
      else {
        path += `${isDown ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`;
        isDown = true;
      }
    }
    return s("path", { d: path, class: `line line-${number}` });
  });
  const marks = [0, most / 2, most].map((value) => [
    s("line", { x1: LEFT, x2: width - 8, y1: y(value), y2: y(value), class: "rule" }),
    s("text", { x: LEFT - 6, y: y(value) + 4, class: "axis end" }, format(value)),
  ]);
  const times = [from, (from + to) / 2, to].map((at, number) =>
    s("text", { x: x(at), y: HEIGHT - 4, class: `axis ${["", "middle", "end"][number]}` }, clock(at)),
  );
  return frame(width, label, [marks, times, paths], series.length > 1 ? series.map((one) => one.name) : []);
}

/** Return a column for each row. rows: [{name, parts: [number], title}]; parts stand on each other. */
export function columns(label, rows, names) {
  const width = innerWidth < 700 ? NARROW : WIDE;
  const most = niceAbove(Math.max(0, ...rows.map((row) => row.parts.reduce((sum, value) => sum + value, 0))));
  const step = (width - LEFT - 8) / Math.max(rows.length, 14);
  const y = (value) => HEIGHT - BOTTOM - (value / most) * (HEIGHT - BOTTOM - TOP);
  const marks = [0, most / 2, most].map((value) => [
    s("line", { x1: LEFT, x2: width - 8, y1: y(value), y2: y(value), class: "rule" }),
    s("text", { x: LEFT - 6, y: y(value) + 4, class: "axis end" }, brief(value)),
  ]);
  const bars = rows.map((row, number) => {
    let below = 0;
    const rects = row.parts.map((value, part) => {
      const top = y(below + value);
      const rect = s("rect", {
        x: LEFT + number * step + step * 0.12,
        width: step * 0.76,
        y: top,
        height: Math.max(0, y(below) - top),
        class: `part part-${part}`,
      });
      below += value;
      return rect;
    });
    return s("g", {}, s("title", {}, row.title), rects);
  });
  const every = Math.max(1, Math.ceil(rows.length / 5));
  const days = rows.map((row, number) =>
    number % every === 0 && s("text", { x: LEFT + (number + 0.5) * step, y: HEIGHT - 4, class: "axis middle" }, row.name),
  );
  return frame(width, label, [marks, bars, days], names);
}

function frame(width, label, content, names) {
  const picture = s("svg", { viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": label, class: "chart" }, content);
  if (!names.length) return picture;
  const legend = names.map((name, number) => h("li", { class: `key key-${number}` }, name));
  return h("div", {}, picture, h("ul", { class: "legend", "aria-hidden": "true" }, legend));
}

/** Return a bar for each row. rows: [{name, value, text, level}]; level: how bad it is, a class. */
export function bars(label, rows) {
  const most = Math.max(1, ...rows.map((row) => row.value));
  const list = rows.map((row) =>
    h(
      "li",
      { class: `bar-row ${row.level}` },
      h("span", { class: "bar-name" }, row.name),
      s(
        "svg",
        { viewBox: "0 0 100 10", preserveAspectRatio: "none", class: "bar-picture", "aria-hidden": "true" },
        s("rect", { width: 100, height: 10, class: "bar-back" }),
        s("rect", { width: row.value ? Math.max(0.7, (row.value / most) * 100) : 0, height: 10, class: "bar-value" }),
      ),
      h("span", { class: "bar-text" }, row.text),
    ),
  );
  return h("ul", { class: "bar-rows", "aria-label": label }, list);
}

/** Return a round number not below a value, by which an axis ends. */
export function niceAbove(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 4, 5, 10].map((factor) => factor * power).find((nice) => nice >= value * 0.999);
}
