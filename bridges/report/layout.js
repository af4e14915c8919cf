// Where the nodes of a circuit lie: layers from left to right, kinds of node from top to bottom.

const KINDS = ["attn_in", "q", "k", "v", "attn_out", "mlp_in", "mlp_neuron", "mlp_out"];
// Points that belong to no layer, with the heading of their column; the stream has one before and one after all layers.
const ENDS = { embedding: [-2, "tokens in"], "first stream": [-1, "stream"], "last stream": [1, "stream"], logits: [2, "tokens out"] };

function place(point) {
  const [first, ...rest] = point.split(".");
  if (point in ENDS) return { end: ENDS[point][0], kind: point, layer: null };
  return { end: 0, kind: rest.join(".") || point, layer: /^\d+$/.test(first) ? Number(first) : 0 };
}

function nodeName(circuit, i) {
  const [point, channel] = circuit.nodes[i], token = circuit.tokens[i];
  const { end, kind, layer } = place(point);
  if (point === "embedding" || point === "logits") return `token ${token === undefined ? channel : `“${token}”`} ${point === "logits" ? "out" : "in"}`;
  if (end) return `stream ${channel}, ${end < 0 ? "embedding" : "last"}`;
  return `layer ${layer}, ${kind.replaceAll("_", " ")} ${channel}`;
}

// Columns, rows and the centre of every node.
function layout(circuit, minimum) {
  const nodes = circuit.nodes.map(([point, channel], i) => ({ i, point, channel, ...place(point) }));
  const layers = nodes.filter((n) => !n.end).map((n) => n.layer);
  const top = layers.length ? Math.max(...layers) : -1, low = layers.length ? Math.min(...layers) : 0;
  const columns = [];
  const end = (e) => nodes.some((n) => n.end === e) && columns.push({ end: e, title: Object.values(ENDS).find((v) => v[0] === e)[1] });
  end(-2), end(-1);
  for (let l = low; l <= top; l++) columns.push({ end: 0, layer: l, title: `layer ${l}` });
  end(1), end(2);
  const present = new Set(nodes.filter((n) => !n.end).map((n) => n.kind));
  const kinds = [...KINDS.filter((k) => present.has(k)), ...[...present].filter((k) => !KINDS.includes(k)).sort()];
  const space = nodes.length > 220 ? 17 : 26, cells = new Map();
  for (const n of nodes) {
    n.column = columns.findIndex((c) => c.end === n.end && (n.end || c.layer === n.layer));
    const key = `${n.column}/${n.end ? "end" : n.kind}`;
    if (!cells.has(key)) cells.set(key, []);
    cells.get(key).push(n);
  }
  columns.forEach((column, c) => {
    if (column.end) return;
    const most = Math.max(1, ...kinds.map((k) => (cells.get(`${c}/${k}`) || []).length));
    column.across = Math.min(12, Math.ceil(Math.sqrt(3 * most)));
  });
  const rows = kinds.map((kind) => {
    const high = Math.max(1, ...columns.map((col, c) => (col.end ? 1 : Math.ceil((cells.get(`${c}/${kind}`) || []).length / col.across))));
    return { kind, title: kind.replaceAll("_", " "), height: high * space + 26 };
  });
  let y = 34;
  for (const row of rows) (row.y = y), (y += row.height);
  const height = Math.max(y + 8, 200), tall = Math.max(1, Math.floor((height - 56) / space));
  for (const [c, column] of columns.entries())
    column.width = column.end ? Math.max(Math.ceil((cells.get(`${c}/end`) || []).length / tall) * space + 40, 78) : Math.max(column.across * space + 26, 64);
  const total = columns.reduce((sum, c) => sum + c.width, 0), stretch = Math.max(1, minimum / total);
  let x = 0;
  for (const column of columns) (column.x = x), (column.width *= stretch), (x += column.width);
  order(nodes, circuit.edges, cells);
  for (const [key, list] of cells) {
    const column = columns[Number(key.split("/")[0])];
    const row = rows.find((r) => r.kind === key.slice(key.indexOf("/") + 1));
    const across = column.end ? Math.ceil(list.length / tall) : column.across;
    list.forEach((n, i) => {
      const line = column.end ? i % Math.ceil(list.length / across) : Math.floor(i / across);
      const spot = column.end ? Math.floor(i / Math.ceil(list.length / across)) : i % across;
      const filled = column.end ? across : Math.min(across, list.length - line * across);
      const lines = column.end ? Math.ceil(list.length / across) : Math.ceil(list.length / across);
      n.x = column.x + column.width / 2 + (spot - (filled - 1) / 2) * space;
      n.y = (column.end ? (height + 26) / 2 : row.y + row.height / 2) + (line - (lines - 1) / 2) * space;
    });
  }
  return { nodes, columns, rows, width: x, height, radius: space > 20 ? 7 : 5 };
}

// Each cell in the order of the mean place of what its nodes are joined to: fewer crossings.
function order(nodes, edges, cells) {
  const rank = new Map();
  for (const list of cells.values()) {
    list.sort((a, b) => a.channel - b.channel);
    list.forEach((n, i) => rank.set(n.i, (i + 0.5) / list.length));
  }
  for (let sweep = 0; sweep < 4; sweep++) {
    const sums = nodes.map(() => [0, 0]);
    for (const [a, b, w] of edges) {
      const size = Math.abs(w);
      sums[a][0] += size * rank.get(b), (sums[a][1] += size);
      sums[b][0] += size * rank.get(a), (sums[b][1] += size);
    }
    for (const list of cells.values()) {
      const mean = (n) => (sums[n.i][1] ? sums[n.i][0] / sums[n.i][1] : rank.get(n.i));
      list.sort((a, b) => mean(a) - mean(b) || a.channel - b.channel);
      list.forEach((n, i) => rank.set(n.i, (i + 0.5) / list.length));
    }
  }
}

// What is joined without a weight: a channel of the stream that one node writes and later ones read; and q and k,
// which decide what the v of their head takes (heads are known for the sparse model only).
function unweighted(nodes, head) {
  const out = [];
  const depth = (n) => (n.end === -1 ? -1 : n.end === 1 ? 1e9 : 2 * n.layer + (n.kind.startsWith("mlp") ? 1 : 0));
  const writes = nodes.filter((n) => n.end === -1 || (!n.end && n.kind.endsWith("_out")));
  const reads = nodes.filter((n) => n.end === 1 || (!n.end && n.kind.endsWith("_in")));
  for (const a of writes) for (const b of reads) if (a.channel === b.channel && depth(a) < depth(b)) out.push([a.i, b.i, "stream"]);
  if (head)
    for (const a of nodes.filter((n) => !n.end && (n.kind === "q" || n.kind === "k")))
      for (const b of nodes.filter((n) => !n.end && n.kind === "v" && n.layer === a.layer))
        if (Math.floor(a.channel / head) === Math.floor(b.channel / head)) out.push([a.i, b.i, "attention"]);
  return out;
}
