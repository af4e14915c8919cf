// A circuit as a graph that can be read with a mouse, a finger or the keyboard.

const FIRST_EDGES = 150; // drawn until the reader asks for more

function drawGraph(holder, data, texts) {
  const view = { texts, circuit: data.circuits[0], highlight: "both", chosen: null, held: false };
  view.choose = (i, focus) => { hold({ node: i }); if (focus) focusNode(i); };
  const tools = el("div", { class: "graph-tools" }), body = el("div", { class: "graph-body" });
  holder.replaceChildren(tools, body);
  let nodes = [], edges = [], canvas = null, panel = null, shown = 0, current = 0;

  function build() {
    const circuit = view.circuit;
    panel = inspector(Object.assign(view, { free: [], chosen: null, held: false }));
    const frame = el("div", { class: "canvas", tabindex: "-1" }), labels = el("div", { class: "rows", "aria-hidden": "true" });
    body.replaceChildren(labels, frame, panel.panel);
    const plan = layout(circuit, frame.clientWidth || 320);
    nodes = plan.nodes;
    view.free = unweighted(nodes, circuit.head);
    canvas = svg("svg", { width: plan.width, height: plan.height, viewBox: `0 0 ${plan.width} ${plan.height}`, role: "group", "aria-label": `${data.label}, ${circuit.name}: ${nodes.length} nodes. Arrow keys move, Enter follows.` });
    for (const column of plan.columns) {
      canvas.append(svg("text", { x: column.x + column.width / 2, y: 16, class: "tick middle" }, column.title));
      if (column.x) canvas.append(svg("path", { d: `M${column.x} 24V${plan.height}`, class: "gridline" }));
    }
    for (const row of plan.rows) {
      const text = el("span", {}, row.title);
      canvas.append(svg("text", { x: -10, y: row.y + row.height / 2 + 4, class: "tick end paper" }, row.title));
      text.style.top = `${row.y + row.height / 2}px`;
      labels.append(text);
    }
    labels.style.height = `${plan.height}px`;
    body.style.setProperty("--tall", `${plan.height}px`);
    const most = Math.max(...circuit.edges.map((e) => Math.abs(e[2])), 1e-12);
    for (const f of view.free.filter((f) => f[2] === "stream"))
      canvas.append((f.drawn = svg("path", { d: curve(nodes[f[0]], nodes[f[1]]), class: "free" })));
    if (view.free.length > 150) canvas.classList.add("many");
    const layer = svg("g");
    edges = circuit.edges.map(([a, b, w], k) => {
      const d = curve(nodes[a], nodes[b]), wide = 0.7 + 3.3 * Math.sqrt(Math.abs(w) / most);
      const group = svg("g", { class: `edge ${w < 0 ? "minus" : "plus"}` }, svg("path", { d, "stroke-width": wide.toFixed(2) }), svg("path", { d, class: "hit" }));
      group.addEventListener("pointerenter", (event) => point(event, { edge: k }));
      group.addEventListener("click", () => hold({ edge: k }));
      return group;
    });
    layer.append(...[...edges].reverse());
    canvas.append(layer);
    for (const n of nodes) {
      const importance = circuit.nodes[n.i][4];
      const about = `${nodeName(circuit, n.i)}${importance === null ? "" : `, importance ${plain(importance)} nats`}`;
      n.drawn = svg("g", { class: `node ${n.end ? "end" : n.kind.startsWith("mlp") ? "mlp" : "attn"}`, transform: `translate(${n.x.toFixed(1)} ${n.y.toFixed(1)})`, role: "button", tabindex: "-1", "aria-label": about, "aria-pressed": "false" });
      n.drawn.append(shape(n, plan.radius), svg("circle", { r: 12, class: "hit" }), svg("title", {}, about));
      n.drawn.addEventListener("pointerenter", (event) => point(event, { node: n.i }));
      n.drawn.addEventListener("focus", () => {
        current = n.i;
        rove();
        if (!n.drawn.matches(":focus-visible")) return;
        if (!view.held) show({ node: n.i });
        uncover(n.drawn);
      });
      n.drawn.addEventListener("click", () => hold({ node: n.i }));
      n.drawn.addEventListener("keydown", (event) => key(event, n));
      canvas.append(n.drawn);
    }
    canvas.addEventListener("pointerleave", () => !view.held && show(null));
    canvas.addEventListener("click", (event) => event.target === canvas && release());
    frame.append(canvas);
    current = 0;
    rove();
    controls();
    draw(Math.min(FIRST_EDGES, circuit.edges.length));
  }

  // Attention squares, MLP circles, ends of the stream diamonds: kinds differ without colour.
  function shape(n, r) {
    if (n.end) return svg("path", { d: `M0-${r}L${r} 0 0 ${r}-${r} 0Z`, class: "shape" });
    if (n.kind.startsWith("mlp")) return svg("circle", { r, class: "shape" });
    return svg("rect", { x: -r + 1, y: -r + 1, width: 2 * r - 2, height: 2 * r - 2, rx: 1.5, class: "shape" });
  }

  function curve(a, b) {
    const p = (v) => v.toFixed(1);
    if (a.column === b.column) {
      // Straight past a row between, an edge would seem to end there: it bows aside.
      const m = (a.y + b.y) / 2, bow = Math.abs(b.y - a.y) > 75 && Math.abs(b.x - a.x) < 30 ? ((a.i + b.i) % 2 ? 26 : -26) : 0;
      return `M${p(a.x)} ${p(a.y)}C${p(a.x + bow)} ${p(m)} ${p(b.x + bow)} ${p(m)} ${p(b.x)} ${p(b.y)}`;
    }
    const m = (a.x + b.x) / 2;
    return `M${p(a.x)} ${p(a.y)}C${p(m)} ${p(a.y)} ${p(m)} ${p(b.y)} ${p(b.x)} ${p(b.y)}`;
  }

  function rove() {
    for (const n of nodes) n.drawn.setAttribute("tabindex", n.i === current ? "0" : "-1");
  }

  function focusNode(i) {
    nodes[i].drawn.focus({ preventScroll: false });
  }

  // The nearest node in the direction of the arrow; what is straight ahead comes before what is aside.
  function key(event, n) {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Enter" || event.key === " ") hold({ node: n.i });
    else if (event.key === "Escape") release();
    else if (event.key in ways) {
      const [dx, dy] = ways[event.key];
      let best = null, least = Infinity;
      for (const m of nodes) {
        const along = (m.x - n.x) * dx + (m.y - n.y) * dy, aside = Math.abs((m.x - n.x) * dy) + Math.abs((m.y - n.y) * dx);
        const cost = along + 3 * aside;
        if (along > 0.5 && cost < least) [best, least] = [m, cost];
      }
      if (best) focusNode(best.i);
    } else return;
    event.preventDefault();
  }

  function reach(start, from, to) {
    const seen = new Set([start]), queue = [start];
    const joined = [...view.circuit.edges.filter((e, k) => k < shown || e[0] === start || e[1] === start), ...view.free];
    while (queue.length) {
      const i = queue.pop();
      for (const e of joined) if (e[from] === i && !seen.has(e[to])) seen.add(e[to]), queue.push(e[to]);
    }
    return seen;
  }

  function show(what) {
    view.chosen = what;
    for (const n of nodes) n.drawn.classList.remove("on", "chosen"), n.drawn.setAttribute("aria-pressed", "false");
    for (const e of edges) e.classList.remove("on");
    for (const f of view.free) f.drawn?.classList.remove("on");
    canvas.classList.toggle("picked", what !== null);
    if (what === null) return panel.empty();
    const light = (up, down) => {
      for (const i of new Set([...up, ...down])) nodes[i].drawn.classList.add("on");
      const inside = (e) => (up.has(e[0]) && up.has(e[1])) || (down.has(e[0]) && down.has(e[1]));
      // The node's own edges show even where they are too weak to be drawn otherwise.
      const own = (e) => "node" in view.chosen && (e[0] === view.chosen.node || e[1] === view.chosen.node);
      view.circuit.edges.forEach((e, k) => inside(e) && (k < shown || own(e)) && edges[k].classList.add("on"));
      for (const f of view.free) if (inside(f)) f.drawn?.classList.add("on");
    };
    if ("edge" in what) {
      const [a, b] = view.circuit.edges[what.edge];
      edges[what.edge].classList.add("on");
      nodes[a].drawn.classList.add("on"), nodes[b].drawn.classList.add("on");
      panel.edge(what.edge);
    } else {
      const i = what.node, none = new Set([i]);
      light(view.highlight === "downstream" ? none : reach(i, 1, 0), view.highlight === "upstream" ? none : reach(i, 0, 1));
      nodes[i].drawn.classList.add("chosen"), nodes[i].drawn.setAttribute("aria-pressed", String(view.held));
      panel.node(i);
    }
  }

  // A finger does not point: what it touches is held by the click, before which nothing may move.
  function point(event, what) {
    if (event.pointerType !== "touch" && !view.held) show(what);
  }

  function hold(what) {
    view.held = true;
    show(what);
    if ("node" in what) uncover(nodes[what.node].drawn);
  }

  // On a narrow screen the panel lies over the foot of the graph, but not over what it is about.
  function uncover(node) {
    const at = node.getBoundingClientRect(), over = panel.panel.getBoundingClientRect();
    if (over.left < at.left && over.top < at.bottom + 12) scrollBy(0, at.bottom + 12 - over.top);
  }

  function release() {
    view.held = false;
    show(null);
  }

  function draw(number) {
    shown = number;
    edges.forEach((e, k) => e.classList.toggle("off", k >= number));
    const joined = new Set(view.circuit.edges.slice(0, number).flatMap((e) => [e[0], e[1]]));
    for (const n of nodes) n.drawn.classList.toggle("alone", !joined.has(n.i));
    if (view.chosen) show(view.chosen);
  }

  function controls() {
    const total = view.circuit.edges.length;
    tools.replaceChildren();
    if (data.circuits.length > 1) tools.append(choice("Circuit", data.circuits.map((c) => c.name), view.circuit.name, (name) => { view.circuit = data.circuits.find((c) => c.name === name); build(); }));
    if (total > 1) {
      const first = Math.min(FIRST_EDGES, total), range = el("input", { type: "range", min: 1, max: total, value: first });
      const said = el("output");
      const say = () => { said.textContent = `${plain(Number(range.value))} of ${plain(total)}, |weight| ≥ ${plain(Math.abs(view.circuit.edges[range.value - 1][2]))}`; };
      range.addEventListener("input", () => { say(); draw(Number(range.value)); });
      say();
      tools.append(el("label", { class: "range" }, el("span", {}, "Strongest edges"), range, said));
    }
    tools.append(choice("Highlight", ["both", "upstream", "downstream"], view.highlight, (way) => { view.highlight = way; if (view.chosen) show(view.chosen); }));
    tools.append(key_());
  }

  function choice(title, options, chosen, act) {
    const select = el("select", {}, ...options.map((o) => el("option", { value: o }, o)));
    select.value = chosen;
    select.addEventListener("change", () => act(select.value));
    return el("label", {}, el("span", {}, title), select);
  }

  function key_() {
    const line = (kind) => svg("svg", { width: 28, height: 10, "aria-hidden": "true" }, svg("g", { class: `edge ${kind}` }, svg("path", { d: "M1 5H27", "stroke-width": 2.5 })));
    const free = svg("svg", { width: 28, height: 10, "aria-hidden": "true" }, svg("path", { d: "M1 5H27", class: "free" }));
    return el("ul", { class: "legend" }, el("li", {}, line("plus"), "weight above 0"), el("li", {}, line("minus"), "below 0"), el("li", {}, free, "same channel of the stream"));
  }

  build();
  holder.after(circuitData(data));
}

// The same circuit as tables, made when they are asked for.
function circuitData(data) {
  const fold = el("details", { class: "data" }, el("summary", {}, "Nodes and edges as tables"));
  fold.addEventListener("toggle", () => {
    if (!fold.open || fold.children.length > 1) return;
    for (const circuit of data.circuits) {
      const name = (i) => nodeName(circuit, i);
      fold.append(
        grid(`Nodes, ${circuit.name}`, ["node", "importance (nats)", "score", "mean"], circuit.nodes.map((n, i) => [name(i), plain(n[4]), plain(n[2]), plain(n[3])])),
        grid(`Edges, ${circuit.name}, strongest first`, ["from", "to", "weight", "matrix"], circuit.edges.map((e) => [name(e[0]), name(e[1]), plain(e[2]), circuit.matrices[e[3]]]))
      );
    }
  });
  return fold;
}

function grid(caption, headings, rows) {
  const head = el("tr", {}, ...headings.map((h) => el("th", { scope: "col" }, h)));
  const body = el("tbody", {}, ...rows.map((row) => el("tr", {}, ...row.map((c, i) => (i ? el("td", { class: /^[−\d]/.test(c) ? "n" : null }, c) : el("th", { scope: "row" }, c))))));
  return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption }, el("table", {}, el("caption", {}, el("span", {}, caption)), el("thead", {}, head), body));
}
