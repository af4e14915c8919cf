// Charts: each panel is drawn for the width it has, so that its text stays readable on a phone.

function drawFigure(holder, panels) {
  // One legend where all panels hold the same series, else one in each that needs it.
  const named = panels.map((spec) => JSON.stringify([...spec.series, ...spec.rules].map((s) => s.name)));
  const shared = new Set(named).size === 1;
  holder.replaceChildren(shared ? legend(panels.slice(0, 1)) : "");
  const grid = el("div", { class: "grid" });
  holder.append(grid);
  for (const spec of panels) {
    const cell = el("div", { class: "panel" });
    if (spec.title) cell.append(el("p", { class: "panel-title" }, spec.title));
    if (!shared) cell.append(legend([spec]));
    grid.append(cell);
  }
  panels.forEach((spec, i) => drawPanel(grid.children[i], spec));
}

function drawPanel(cell, spec) {
  cell.querySelector(":scope > svg")?.remove();
  const width = Math.max(230, Math.floor(cell.clientWidth || 320));
  cell.append(spec.kind === "dots" ? dots(spec, width) : lines(spec, width));
}

function legend(panels) {
  const list = el("ul", { class: "legend" });
  const seen = new Set();
  const add = (name, swatch) => {
    if (seen.has(name)) return;
    seen.add(name);
    list.append(el("li", {}, swatch, name));
  };
  for (const spec of panels) {
    for (const series of spec.series) {
      const joined = spec.kind === "lines" && series.line;
      const swatch = svg("svg", { width: 30, height: 14, "aria-hidden": "true" });
      if (joined) swatch.append(svg("path", { d: "M1 7H29", class: `line c${series.colour}`, "stroke-dasharray": series.dash || null }));
      if (series.marker) swatch.append(marker(series, 15, 7));
      add(series.name, swatch);
    }
    spec.rules.forEach((rule, i) => {
      const swatch = svg("svg", { width: 30, height: 14, "aria-hidden": "true" });
      swatch.append(svg("path", { d: "M1 7H29", class: "rule", "stroke-dasharray": RULES[i % RULES.length] }));
      add(rule.name, swatch);
    });
    if (spec.marked) add(spec.marked.name, svg("svg", { width: 14, height: 14, "aria-hidden": "true" }, svg("path", { d: "M7 0V14", class: "marked" })));
  }
  if (seen.size < 2) list.hidden = true;
  return list;
}

const RULES = ["9 4", "2 4"];

function summary(spec) {
  const names = spec.series.map((s) => s.name).join(", ");
  return `${spec.title || spec.y}. ${spec.y}${spec.x ? ` over ${spec.x}` : ""}: ${names}. The numbers are in the table below.`;
}

function measured(spec, point, name) {
  const ends = point[2] === null ? "" : ` [${label(point[2], spec.share)}, ${label(point[3], spec.share)}]`;
  const where = spec.ticks ? spec.ticks[point[0]] : plain(point[0]);
  return `${name} · ${where}: ${label(point[1], spec.share)}${ends}`;
}

function lines(spec, width) {
  const height = Math.round(Math.min(300, Math.max(210, width * 0.62)));
  const all = spec.series.flatMap((s) => s.points);
  const values = all.flatMap((p) => p.slice(1)).filter((v) => v !== null).concat(spec.rules.map((r) => r.y));
  const y = axis(values, { log: spec.logY, zero: !spec.logY, unit: spec.unit || spec.share && Math.max(...values) > 0.5, room: 5 });
  const xs = all.map((p) => p[0]);
  const x = spec.ticks
    ? { at: (v) => (v + 0.5) / spec.ticks.length, ticks: spec.ticks.map((_, i) => i) }
    : axis(xs, { log: spec.logX, zero: !spec.logX, unit: spec.unit, room: Math.max(3, Math.min(6, Math.floor(width / 75))) });
  const left = 12 + 6.6 * Math.max(...y.ticks.map((t) => label(t, spec.share).length), 3), right = 12, top = 28, bottom = 44;
  const X = (v) => left + x.at(v) * (width - left - right), Y = (v) => height - bottom - y.at(v) * (height - top - bottom);
  const out = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary(spec) });
  for (const t of y.ticks) {
    out.append(svg("path", { d: `M${left} ${Y(t).toFixed(1)}H${width - right}`, class: "gridline" }));
    out.append(svg("text", { x: left - 7, y: Y(t) + 4, class: "tick end" }, label(t, spec.share)));
  }
  const labels = x.ticks.map((t) => (spec.ticks ? spec.ticks[t] : plain(t, 4)));
  const needed = 7.4 * Math.max(...labels.map((l) => l.length)) + 8;
  const step = spec.ticks ? Math.max(1, Math.ceil((needed * labels.length) / (width - left - right))) : 1;
  x.ticks.forEach((t, i) => {
    if (i % step === 0) out.append(svg("text", { x: X(t), y: height - bottom + 17, class: "tick middle" }, labels[i]));
  });
  out.append(svg("path", { d: `M${left} ${height - bottom}H${width - right}`, class: "axis" }));
  out.append(svg("text", { x: left + (width - left - right) / 2, y: height - 8, class: "name middle" }, spec.x));
  out.append(svg("text", { x: 2, y: 11, class: "name" }, spec.y));
  spec.rules.forEach((rule, i) => {
    const line = svg("path", { d: `M${left} ${Y(rule.y).toFixed(1)}H${width - right}`, class: "rule", "stroke-dasharray": RULES[i % RULES.length] });
    line.append(svg("title", {}, `${rule.name}: ${label(rule.y, spec.share)}`));
    out.append(line);
  });
  if (spec.marked) {
    const line = svg("path", { d: `M${X(spec.marked.x).toFixed(1)} ${top}V${height - bottom}`, class: "marked" });
    line.append(svg("title", {}, spec.marked.name));
    out.append(line);
  }
  for (const series of spec.series) {
    const points = series.points.map((p) => [X(p[0]), Y(p[1]), p]);
    for (const [px, , p] of points)
      if (p[2] !== null) out.append(svg("path", { d: `M${px.toFixed(1)} ${Y(p[2]).toFixed(1)}V${Y(p[3]).toFixed(1)}`, class: `bar c${series.colour}` }));
    const d = points.map(([px, py], i) => `${i ? "L" : "M"}${px.toFixed(1)} ${py.toFixed(1)}`).join("");
    if (points.length > 1 || !series.marker) out.append(svg("path", { d, class: `line c${series.colour}`, "stroke-dasharray": series.dash || null }));
    if (series.marker && points.length <= 40) for (const [px, py, p] of points) out.append(marker(series, px, py, measured(spec, p, series.name)));
  }
  return out;
}

function dots(spec, width) {
  const names = spec.ticks, room = Math.min((width < 400 ? 0.52 : 0.42) * width, 8 + 6.9 * Math.max(...names.map((n) => n.length)));
  const fit = Math.floor((room - 8) / 6.9);
  const row = names.length > 12 ? 22 : 28, top = 8, bottom = 46, height = top + bottom + row * names.length;
  const left = room, right = 18;
  const values = spec.series.flatMap((s) => s.points.flatMap((p) => p.slice(1))).filter((v) => v !== null);
  const unit = spec.share;
  const x = axis(values, { log: spec.logY, zero: !spec.logY, unit, room: Math.max(2, Math.min(5, Math.floor((width - left) / 62))) });
  const X = (v) => left + 6 + x.at(v) * (width - left - right - 6), Y = (i) => top + row * (i + 0.5);
  const out = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": summary(spec) });
  for (const t of x.ticks) {
    out.append(svg("path", { d: `M${X(t).toFixed(1)} ${top}V${height - bottom}`, class: "gridline" }));
    out.append(svg("text", { x: X(t), y: height - bottom + 17, class: "tick middle" }, label(t, spec.share)));
  }
  names.forEach((name, i) => {
    const text = svg("text", { x: left - 8, y: Y(i) + 4, class: "tick end category" }, name.length > fit ? `${name.slice(0, Math.max(1, fit - 1))}…` : name);
    text.append(svg("title", {}, name));
    out.append(text, svg("path", { d: `M${left} ${Y(i)}H${width - right}`, class: "gridline faint" }));
  });
  for (const rule of spec.rules) {
    const line = svg("path", { d: `M${X(rule.y).toFixed(1)} ${top}V${height - bottom}`, class: "rule", "stroke-dasharray": RULES[0] });
    line.append(svg("title", {}, `${rule.name}: ${label(rule.y, spec.share)}`));
    out.append(line);
  }
  const anchored = width - left < 230;
  out.append(svg("text", { x: anchored ? width - right : left + (width - left - right) / 2, y: height - 8, class: anchored ? "name end" : "name middle" }, spec.y));
  const many = spec.series.length;
  spec.series.forEach((series, k) => {
    for (const p of series.points) {
      const cy = Y(p[0]) + (many > 1 ? (k - (many - 1) / 2) * Math.min(6, row / (many + 1)) : 0);
      if (p[2] !== null) out.append(svg("path", { d: `M${X(p[2]).toFixed(1)} ${cy.toFixed(1)}H${X(p[3]).toFixed(1)}`, class: `bar c${series.colour}` }));
      out.append(marker(series, X(p[1]), cy, measured(spec, p, series.name)));
    }
  });
  return out;
}
