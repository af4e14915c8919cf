// What a circuit consists of, and its core: the nodes with the largest attributions and what joins them.

const STAGES = { attn_in: 0, q: 1, k: 1, v: 1, attn_out: 2, mlp_in: 3, mlp_neuron: 4, mlp_out: 5 };
const KINDS = { attn_in: "attn in", q: "query", k: "key", v: "value", attn_out: "attn out", mlp_in: "mlp in", mlp_neuron: "neuron", mlp_out: "mlp out" };
const FIRST = -1, LAST = 1e6; // depth of the tokens at both ends

// The nodes as objects in the order of the page: the largest attribution first.
function readCircuit(circuit) {
  const nodes = circuit.nodes.map(([p, channel, attribution, effect, mean, guarded], i) => {
    const point = circuit.points[p], [first, ...rest] = point.split(".");
    const layer = /^\d+$/.test(first) ? Number(first) : 0, kind = rest.join(".") || point;
    const key = `${circuit.model === "sparse" ? "" : `${circuit.model}/`}${point}:${channel}`;
    const short = `${KINDS[kind] || kind.replaceAll("_", " ")} ${channel}`;
    const head = circuit.head && STAGES[kind] === 1 ? Math.floor(channel / circuit.head) : null;
    return { i, key, point, layer, kind, channel, attribution, effect, mean, protected: Boolean(guarded), head, short, long: `layer ${layer}, ${short}`, depth: 6 * layer + (STAGES[kind] ?? 5) };
  });
  const edges = circuit.edges.map(([a, b, weight, attribution, matrix]) => ({ a, b, weight, attribution, matrix: circuit.matrices[matrix], kind: "edge" }));
  const reads = circuit.reads.map(([token, channel, weight, attribution]) => ({ token, channel, weight, attribution }));
  const writes = circuit.writes.map(([channel, token, weight, attribution]) => ({ token, channel, weight, attribution }));
  return { ...circuit, nodes, edges, reads, writes, free: unweighted(nodes, circuit.head) };
}

const writesStream = (n) => n.kind.endsWith("_out"), readsStream = (n) => n.kind.endsWith("_in");

// What is joined without a weight: a channel of the stream that one node writes and later ones read; and queries and
// keys, which decide what the values of their head are worth (heads are known for the sparse model only).
function unweighted(nodes, head) {
  const out = [], byChannel = new Map();
  for (const n of nodes.filter(writesStream)) byChannel.set(n.channel, [...(byChannel.get(n.channel) || []), n]);
  for (const b of nodes.filter(readsStream))
    for (const a of byChannel.get(b.channel) || []) if (a.depth < b.depth) out.push({ a: a.i, b: b.i, kind: "stream" });
  if (head)
    for (const a of nodes.filter((n) => n.kind === "q" || n.kind === "k"))
      for (const b of nodes.filter((n) => n.kind === "v" && n.layer === a.layer && n.head === a.head)) out.push({ a: a.i, b: b.i, kind: "attention" });
  return out;
}

// The tokens whose weights count most, `most` of them.
function tokensOf(ends, most) {
  const sums = new Map();
  for (const e of ends) sums.set(e.token, (sums.get(e.token) || 0) + Math.abs(e.attribution ?? e.weight));
  return [...sums].sort((a, b) => b[1] - a[1]).slice(0, most).map((e) => e[0]);
}

// The first k nodes and `extra` ones, tokens at both ends, and every link between them. Items are numbered anew; `at`
// finds the item of a node.
function coreOf(circuit, k, extra = []) {
  const chosen = [...new Set([...circuit.nodes.slice(0, k).map((n) => n.i), ...extra])];
  const items = chosen.map((i) => ({ node: circuit.nodes[i], depth: circuit.nodes[i].depth }));
  const at = new Map(chosen.map((i, place) => [i, place]));
  const links = [...circuit.edges, ...circuit.free].filter((e) => at.has(e.a) && at.has(e.b)).map((e) => ({ ...e, from: at.get(e.a), to: at.get(e.b) }));
  // A token's channel is read by the first node that reads it, and an answer's written by the last that writes it.
  const nearest = (end) => {
    const found = new Map();
    for (const place of chosen.map((_, place) => place)) {
      const n = items[place].node, before = found.get(n.channel);
      if (!(end === "in" ? readsStream : writesStream)(n)) continue;
      if (before === undefined || (end === "in" ? n.depth < items[before].depth : n.depth > items[before].depth)) found.set(n.channel, place);
    }
    return found;
  };
  const most = Math.min(24, Math.max(4, Math.round(k / 4))), tokens = {};
  for (const [end, ends, depth] of [["in", circuit.reads, FIRST], ["out", circuit.writes, LAST]]) {
    const readers = nearest(end), direct = ends.filter((e) => readers.has(e.channel));
    // Answers are always there; tokens of the prompt are where the core reads them itself, or else nowhere does it.
    const names = tokensOf(end === "in" && direct.length ? direct : ends, most);
    tokens[end] = new Map(names.map((token) => [token, items.push({ token, end, depth }) - 1]));
    for (const e of direct.filter((e) => tokens[end].has(e.token))) {
      const pair = [tokens[end].get(e.token), readers.get(e.channel)];
      const [from, to] = end === "in" ? pair : pair.reverse();
      links.push({ ...e, kind: "edge", matrix: end === "in" ? "embedding" : "unembedding", from, to });
    }
  }
  return { items, links: [...links, ...hidden(circuit, items, at, links, tokens.in, tokens.out)], at };
}

// Where an item has no link on one side, the strongest way through nodes that are not shown to one that is: of all ways
// the one whose weakest node has the largest attribution.
function hidden(circuit, items, at, links, into, outof) {
  const next = [[], []];
  const join = (a, b) => { (next[0][a] ||= []).push(b), (next[1][b] ||= []).push(a); };
  const count = circuit.nodes.length;
  for (const e of [...circuit.edges, ...circuit.free]) join(e.a, e.b);
  const ends = new Map();
  for (const [tokens, list, fits] of [[into, circuit.reads, readsStream], [outof, circuit.writes, writesStream]])
    for (const e of list) {
      if (!tokens.has(e.token)) continue;
      const id = count + tokens.get(e.token);
      ends.set(id, tokens.get(e.token));
      for (const n of circuit.nodes) if (n.channel === e.channel && fits(n)) tokens === into ? join(id, n.i) : join(n.i, id);
    }
  const item = (v) => (v >= count ? ends.get(v) : at.get(v));
  const vertex = (place) => (items[place].node ? items[place].node.i : count + place);
  const found = new Map();
  items.forEach((shown, place) => {
    for (const [way, side, other] of [[0, "from", "in"], [1, "to", "out"]]) {
      if (shown.end && shown.end !== other) continue;
      if (links.some((l) => l[side] === place)) continue;
      const target = widest(vertex(place), next[way], (v) => item(v) !== undefined, (v) => Math.abs(circuit.nodes[v].attribution ?? 0));
      if (target === null) continue;
      const [from, to] = way === 0 ? [place, item(target)] : [item(target), place];
      if (!links.some((l) => l.from === from && l.to === to)) found.set(`${from} ${to}`, { from, to, kind: "hidden" });
    }
  });
  return [...found.values()];
}

function widest(start, next, shown, width) {
  const best = new Map([[start, Infinity]]), done = new Set();
  while (true) {
    let v = null;
    for (const [u, w] of best) if (!done.has(u) && (v === null || w > best.get(v))) v = u;
    if (v === null) return null;
    if (v !== start && shown(v)) return v;
    done.add(v);
    for (const u of next[v] || []) {
      const w = Math.min(best.get(v), shown(u) ? Infinity : width(u));
      if (!done.has(u) && w > (best.get(u) ?? -1)) best.set(u, w);
    }
  }
}
