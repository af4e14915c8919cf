// The panel beside a graph: what a node or an edge is, what it is joined to, and text on which a node is active.

function inspector(view) {
  const panel = el("aside", { class: "inspector", "aria-live": "polite", "aria-label": "Details of the chosen node or edge" });
  const name = (i) => nodeName(view.circuit, i);

  function empty() {
    const { nodes, edges, leftNodes, leftEdges, leftEnds } = view.circuit;
    const end = (i) => nodes[i][0] in ENDS;
    const inside = nodes.filter((n) => !(n[0] in ENDS)).length, ends = edges.filter((e) => end(e[0]) || end(e[1])).length;
    const of = (here, left, what) => `${left ? `${plain(here)} of ` : ""}${plain(here + left)} ${what}`;
    panel.replaceChildren(
      el("h5", {}, view.circuit.name),
      el("p", {}, `Here are ${of(inside, leftNodes, "nodes")}, ${of(edges.length - ends, leftEdges, "edges")} between them, and ${of(ends, leftEnds, "weights of embedding and unembedding")}.`),
      leftNodes || leftEdges || leftEnds ? el("p", { class: "note" }, "What is not here is weaker or less important; the tables in the run’s folder hold it.") : "",
      el("p", { class: "note" }, "Point at a node or an edge to read it; click, or press Enter, to keep it and follow what it is joined to. Arrow keys move between nodes, Escape lets go.")
    );
  }

  function link(i, weight, matrix) {
    const button = el("button", { type: "button", class: "follow" }, el("span", {}, name(i)));
    if (weight !== null) button.append(el("b", { class: weight < 0 ? "minus" : "plus" }, `${weight < 0 ? "" : "+"}${plain(weight)}`));
    if (matrix) button.setAttribute("title", matrix);
    button.addEventListener("click", () => view.choose(i, true));
    return el("li", {}, button);
  }

  function list(title, items, most = 12, some = "") {
    if (!items.length) return "";
    const heading = el("h6", {}, `${title} (${items.length}${some})`);
    const shown = el("ul", { class: "links" }, ...items.slice(0, most));
    if (items.length > most) {
      const more = el("button", { type: "button", class: "more" }, `${items.length - most} more`);
      more.addEventListener("click", () => { shown.append(...items.slice(most)); more.remove(); });
      return el("div", {}, heading, shown, more);
    }
    return el("div", {}, heading, shown);
  }

  function node(i) {
    const [point, , score, mean, importance] = view.circuit.nodes[i];
    const facts = el("dl");
    for (const [term, value] of [["Importance", importance], ["Score of the search", score], ["Mean in text", mean]])
      if (value !== null) facts.append(el("div", {}, el("dt", {}, term), el("dd", {}, plain(value) + (term === "Importance" ? " nats" : ""))));
    const by = (a, b) => Math.abs(b[2]) - Math.abs(a[2]);
    const { edges, matrices, leftEdges, leftEnds } = view.circuit, some = leftEdges || leftEnds ? " here" : "";
    const places = view.circuit.examples[i], elsewhere = !places && !(point in ENDS) && Object.keys(view.circuit.examples).length;
    const into = edges.filter((e) => e[1] === i).sort(by), out = edges.filter((e) => e[0] === i).sort(by);
    const free = (from, to, kind) => view.free.filter((f) => f[from] === i && f[2] === kind).map((f) => link(f[to], null));
    panel.replaceChildren(
      el("h5", {}, name(i)),
      facts,
      list("Reads", into.map((e) => link(e[0], e[2], matrices[e[3]])), 5, some),
      list("Writes", out.map((e) => link(e[1], e[2], matrices[e[3]])), 5, some),
      elsewhere ? el("p", { class: "note" }, "The text it is most active on is in the run’s folder, in the table “activations”.") : examples(places, view.texts),
      list("Same channel of the stream, written by", free(1, 0, "stream"), 6),
      list("Same channel of the stream, read by", free(0, 1, "stream"), 6),
      list("Attends for", free(0, 1, "attention"), 6),
      list("Attention decided by", free(1, 0, "attention"), 6)
    );
  }

  function edge(k) {
    const [a, b, weight, matrix] = view.circuit.edges[k];
    panel.replaceChildren(
      el("h5", {}, `Edge of ${view.circuit.matrices[matrix]}`),
      el("p", {}, "Weight ", el("b", { class: weight < 0 ? "minus" : "plus" }, `${weight < 0 ? "" : "+"}${plain(weight)}`), weight < 0 ? " (lowers what it writes to)" : " (raises what it writes to)"),
      list("From", [link(a, null)]),
      list("To", [link(b, null)])
    );
  }

  empty();
  return { panel, empty, node, edge };
}

// Tokens shaded by the activation: above zero solid, below zero hatched, the marked one framed.
function examples(places, texts) {
  if (!places) return "";
  const most = Math.max(...places.flatMap((p) => p[3].map((v) => Math.abs(v ?? 0))), 1e-12);
  const box = el("div", {}, el("h6", {}, "Most active on"));
  for (const [value, marked, tokens, values] of places) {
    const code = el("code", { class: "snippet" });
    tokens.forEach((text, i) => {
      const v = values[i] ?? 0, strength = Math.min(1, Math.abs(v) / most);
      const sign = strength < 0.02 ? "" : v < 0 ? " below" : " above";
      code.append(el(i === marked ? "mark" : "span", { class: `token${sign}`, style: `--a:${strength.toFixed(2)}`, title: plain(v) }, texts[text]));
    });
    box.append(el("p", { class: "example" }, el("span", { class: "value" }, plain(value)), code));
  }
  return box;
}
