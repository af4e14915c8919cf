// Where the items of a core lie: depth from top to bottom, rows ordered so that links are short and cross little.

const CARD = { width: 122, height: 34, gap: 12, row: 16 }, DOT = { width: 15, height: 15, gap: 6, row: 14 };
const NARROW = 560; // boxes up to this width have little room at the left for the names of the layers
const CARDS = 48; // nodes up to which each is drawn as a card with its name
const ROUTED = 260; // links up to which those that pass rows go around what lies in them

// Places every item (x, y: its centre; width, height) in the shape that fits best into a box of that size, and gives
// every link the points it goes through.
function layout(core, boxWidth, boxHeight) {
  const style = core.items.filter((t) => t.node).length <= CARDS ? CARD : DOT;
  for (const t of core.items) {
    t.height = t.node ? style.height : 22;
    t.width = t.node ? style.width : Math.min(150, 20 + 7 * [...shownToken(t.token)].length);
  }
  let best = null;
  const narrow = boxWidth <= NARROW, gutter = narrow ? 26 : 66;
  for (const share of style === CARD ? [0.55, 0.75, 1, 1.35, 1.8] : [1, 1.6, 2.4]) {
    const plan = arrange(core, Math.max(200, share * boxWidth), style, gutter);
    plan.scale = Math.min(boxWidth / plan.width, boxHeight / plan.height);
    if (!best || plan.scale > best.scale + 0.01) best = plan;
  }
  core.items.forEach((t, i) => Object.assign(t, best.boxes[i]));
  core.links.forEach((l, k) => { l.through = best.routes[k].map((i) => best.boxes[i]); });
  return { ...best, narrow, cards: style === CARD };
}

// A token that is only spaces would be nothing to see.
function shownToken(token) {
  return token.trim() ? token : "␣".repeat(Math.min(4, Math.max(1, token.length)));
}

function arrange(core, room, style, gutter) {
  const boxes = core.items.map((t) => ({ width: t.width, height: t.height, x: 0, y: 0 })), rows = [], rowOf = [];
  for (const depth of [...new Set(core.items.map((t) => t.depth))].sort((a, b) => a - b)) {
    const line = core.items.map((t, i) => i).filter((i) => core.items[i].depth === depth);
    const wide = line.reduce((sum, i) => sum + boxes[i].width + style.gap, 0);
    const lines = Math.max(1, Math.ceil(wide / room));
    for (let k = 0; k < lines; k++) rows.push(line.slice(Math.floor((k * line.length) / lines), Math.floor(((k + 1) * line.length) / lines)));
  }
  rows.forEach((row, r) => row.forEach((i) => (rowOf[i] = r)));
  const heads = rows.map((row) => core.items[row[0]]);
  const routes = routed(core.links, boxes, rows, rowOf);
  spread(boxes, rows, routes, core.links, style, room);
  // Lines of one depth lie closer together, layers further apart.
  let y = 10;
  const bands = [], layerOf = (t) => (t.node ? t.node.layer : t.end);
  heads.forEach((head, r) => {
    const before = heads[r - 1], same = before && layerOf(head) === layerOf(before);
    if (before) y += head.depth === before.depth ? style.row / 2 : same ? style.row : style.row + 12;
    if (!same) bands.push({ layer: layerOf(head), top: y });
    for (const i of rows[r]) boxes[i].y = y + head.height / 2;
    y += head.height;
    bands[bands.length - 1].bottom = y;
  });
  const x0 = Math.min(...boxes.map((b) => b.x - b.width / 2)), x1 = Math.max(...boxes.map((b) => b.x + b.width / 2));
  for (const box of boxes) box.x += gutter - x0;
  return { boxes, routes, bands, width: x1 - x0 + gutter + 10, height: y + 10 };
}

// The boxes that every link goes through: where it passes rows, an empty one in each of them.
function routed(links, boxes, rows, rowOf) {
  return links.map((l) => {
    const through = [l.from];
    if (links.length <= ROUTED)
      for (let r = rowOf[l.from] + 1; r < rowOf[l.to]; r++) {
        rows[r].push(boxes.length);
        through.push(boxes.length);
        boxes.push({ width: 4, height: 0, x: 0, y: 0, empty: true });
      }
    return [...through, l.to];
  });
}

// The middle of every box: each row in turn goes as near as it can to what it is joined to, without overlaps, and
// stays within the room if it fits there.
function spread(boxes, rows, routes, links, style, room) {
  const near = boxes.map(() => []), row = [];
  rows.forEach((line, r) => line.forEach((i) => (row[i] = r)));
  routes.forEach((through, k) => {
    const size = links[k].kind === "edge" ? 1 + Math.sqrt(Math.abs(links[k].attribution ?? 0)) : 0.6;
    for (let j = 1; j < through.length; j++) {
      const [a, b] = [through[j - 1], through[j]];
      // Between two empty boxes a link should be straight.
      const weight = size * (boxes[a].empty && boxes[b].empty ? 4 : 1);
      if (row[a] !== row[b]) near[a].push([b, weight]), near[b].push([a, weight]);
    }
  });
  for (const line of rows) settle(line, line.map((i, k) => (k - (line.length - 1) / 2) * (style.width + style.gap)));
  for (let sweep = 0; sweep < (boxes.length > 400 ? 6 : 16); sweep++)
    for (const line of sweep % 2 ? [...rows].reverse() : rows)
      settle(line, line.map((i) => {
        const size = near[i].reduce((sum, e) => sum + e[1], 0);
        // A little to the middle, so that what is loosely joined does not drift away.
        return size ? (near[i].reduce((sum, [j, w]) => sum + w * boxes[j].x, 0) / size) * 0.97 : boxes[i].x * 0.9;
      }));

  // In the order of where they would like to be, each as near to it as its neighbours allow (blocks that are pushed
  // together lie around the mean of what they want).
  function settle(line, wanted) {
    const order = line.map((i, k) => [i, wanted[k]]).sort((a, b) => a[1] - b[1] || a[0] - b[0]);
    line.splice(0, line.length, ...order.map((e) => e[0]));
    const blocks = [];
    for (const [i, want] of order) {
      blocks.push({ list: [i], width: boxes[i].width + style.gap, sum: want, count: 1 });
      while (blocks.length > 1) {
        const b = blocks[blocks.length - 1], a = blocks[blocks.length - 2];
        if (a.sum / a.count + a.width / 2 <= b.sum / b.count - b.width / 2) break;
        blocks.splice(-2, 2, { list: [...a.list, ...b.list], width: a.width + b.width, sum: a.sum + b.sum, count: a.count + b.count });
      }
    }
    let least = Math.min(-room / 2, -blocks.reduce((sum, b) => sum + b.width, 0) / 2), most = -least;
    for (const block of blocks) {
      block.x = Math.max(least, block.sum / block.count - block.width / 2);
      least = block.x + block.width;
    }
    for (const block of [...blocks].reverse()) {
      block.x = Math.min(block.x, most - block.width);
      most = block.x;
    }
    for (const block of blocks) {
      let { x } = block;
      for (const i of block.list) {
        const width = boxes[i].width + style.gap;
        boxes[i].x = x + width / 2;
        x += width;
      }
    }
  }
}
