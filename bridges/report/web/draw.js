"use strict";
// SVG and HTML elements, numbers and axes. Text only ever enters the page as text nodes.

const SVG = "http://www.w3.org/2000/svg";

function svg(name, attributes = {}, ...children) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

function el(name, attributes = {}, ...children) {
  const node = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) if (value !== null) node.setAttribute(key, value);
  node.append(...children);
  return node;
}

const RAISED = { "-": "⁻", 0: "⁰", 1: "¹", 2: "²", 3: "³", 4: "⁴", 5: "⁵", 6: "⁶", 7: "⁷", 8: "⁸", 9: "⁹" };

function plain(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  let text;
  if (size < 10 ** -digits || size >= 1e5) {
    const [mantissa, exponent] = value.toExponential(Math.max(digits - 1, 1)).split("e");
    text = `${Number(mantissa)}·10${[...String(Number(exponent))].map((c) => RAISED[c]).join("")}`;
  } else if (size >= 1000) text = Math.round(value).toString().replace(/\B(?=(\d{3})+$)/g, "\u202f");
  else text = String(Number(value.toFixed(digits)));
  return text.replace("-", "−");
}

function label(value, share) {
  if (share) return `${plain(100 * value, 2)}\u00a0%`;
  if (value > 0 && (value < 1e-3 || value >= 1e5)) {
    const exponent = Math.floor(Math.log10(value) + 1e-9);
    const mantissa = Number((value / 10 ** exponent).toPrecision(2));
    const power = `10${[...String(exponent)].map((c) => RAISED[c]).join("")}`;
    return mantissa === 1 ? power : `${mantissa}·${power}`;
  }
  return plain(value);
}

// The axis over [low, high]: a map to [0, 1] and its ticks.
function axis(values, { log = false, zero = false, unit = false, room = 6 } = {}) {
  let low = Math.min(...values), high = Math.max(...values);
  if (unit && !log) [low, high] = [Math.min(0, low), Math.max(1, high)];
  if (log) {
    let a = Math.log10(low), b = Math.log10(high);
    const pad = Math.max(0.06 * (b - a), 0.04);
    [a, b] = [a - pad, b + pad];
    const every = Math.max(1, Math.ceil((b - a) / room));
    const steps = b - a < 1.1 ? [1, 2, 3, 5, 7] : b - a < 2.6 ? [1, 2, 5] : [1];
    const ticks = [];
    for (let e = Math.floor(a); e <= b; e++)
      for (const s of steps) {
        const at = Math.log10(s) + e;
        if (at >= a && at <= b && (steps.length > 1 || e % every === 0)) ticks.push(s * 10 ** e);
      }
    while (ticks.length > room + 1) for (let i = ticks.length - 2; i > 0; i -= 2) ticks.splice(i, 1);
    return { at: (v) => (Math.log10(v) - a) / (b - a), ticks };
  }
  if (zero) [low, high] = [Math.min(0, low), Math.max(0, high)];
  if (low === high) [low, high] = low ? [low - 0.5 * Math.abs(low), high + 0.5 * Math.abs(high)] : [0, 1];
  const pad = unit ? 0 : 0.05 * (high - low);
  if (low !== 0 && !unit) low -= pad;
  high += pad;
  const raw = (high - low) / room, power = 10 ** Math.floor(Math.log10(raw));
  const step = power * [1, 2, 2.5, 5, 10].find((m) => m * power >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-9); i * step <= high + 1e-9 * step; i++) ticks.push(Number((i * step).toPrecision(10)));
  return { at: (v) => (v - low) / (high - low), ticks };
}

const SHAPES = {
  circle: () => svg("circle", { r: 4 }),
  ring: () => svg("circle", { r: 3.6, class: "hollow" }),
  square: () => svg("rect", { x: -3.6, y: -3.6, width: 7.2, height: 7.2 }),
  diamond: () => svg("path", { d: "M0-5 5 0 0 5-5 0Z" }),
  triangle: () => svg("path", { d: "M0-4.8 4.6 3.6-4.6 3.6Z" }),
  down: () => svg("path", { d: "M0 4.8 4.6-3.6-4.6-3.6Z", class: "hollow" }),
  cross: () => svg("path", { d: "M-3.8-3.8 3.8 3.8M3.8-3.8-3.8 3.8", class: "stroke" }),
};

function marker(series, x, y, title) {
  const group = svg("g", { class: `mark c${series.colour}`, transform: `translate(${x.toFixed(1)} ${y.toFixed(1)})` });
  group.append(SHAPES[series.marker]());
  if (title) group.append(svg("title", {}, title));
  return group;
}
