// Files that leave the page: a drawing as SVG or PNG, the names as JSON, the page itself with the names inside.

const DRAWN = ["fill", "stroke", "stroke-width", "stroke-dasharray", "stroke-linecap", "stroke-linejoin", "opacity", "font-size", "font-weight", "font-style", "text-anchor", "display"];

function download(name, content, type) {
  const url = URL.createObjectURL(content instanceof Blob ? content : new Blob([content], { type }));
  const link = el("a", { href: url, download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

// The drawing by itself: colours and fonts of the page's style are written into it, with a line of text below.
function standalone(canvas, caption) {
  const box = canvas.viewBox.baseVal, copy = canvas.cloneNode(true), paper = getComputedStyle(document.body);
  const from = [canvas, ...canvas.querySelectorAll("*")], onto = [copy, ...copy.querySelectorAll("*")];
  from.forEach((node, i) => {
    const style = getComputedStyle(node), target = onto[i];
    if (style.display === "none" || node.classList.contains("hit")) return target.remove();
    if (node.namespaceURI === SVG && node.localName !== "title") for (const key of DRAWN) if (key !== "display") target.setAttribute(key, style.getPropertyValue(key));
    if (node.localName === "text") target.setAttribute("font-family", style.fontFamily);
    for (const left of ["class", "tabindex", "role", "aria-label", "aria-pressed", "style"]) target.removeAttribute(left);
  });
  copy.querySelector("g")?.removeAttribute("transform");
  const width = Math.ceil(box.width), height = Math.ceil(box.height) + 28;
  const ground = svg("rect", { x: box.x, y: box.y, width, height, fill: paper.backgroundColor });
  const line = svg("text", { x: box.x + 10, y: box.y + height - 10, fill: paper.color, "font-size": 12, "font-family": paper.fontFamily });
  line.textContent = caption;
  copy.prepend(ground);
  copy.append(line);
  for (const [key, value] of [["xmlns", SVG], ["width", width], ["height", height], ["viewBox", `${box.x} ${box.y} ${width} ${height}`]]) copy.setAttribute(key, value);
  return { text: new XMLSerializer().serializeToString(copy), width, height };
}

function saveSvg(canvas, name, caption) {
  download(`${name}.svg`, standalone(canvas, caption).text, "image/svg+xml");
}

async function savePng(canvas, name, caption) {
  const { text, width, height } = standalone(canvas, caption), sharp = 2;
  const image = new Image();
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(text)}`;
  await image.decode();
  const paper = el("canvas", { width: sharp * width, height: sharp * height });
  paper.getContext("2d").drawImage(image, 0, 0, sharp * width, sharp * height);
  download(`${name}.png`, await new Promise((done) => paper.toBlob(done, "image/png")));
}

// The page as it was read, before anything was drawn, with other names in its data.
function savePage(asRead, names) {
  const page = new DOMParser().parseFromString(asRead, "text/html"), holder = page.getElementById("data");
  const data = JSON.parse(holder.textContent);
  data.names = names;
  holder.textContent = JSON.stringify(data).replace(/[<>&\u2028\u2029]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`);
  download("report.html", `<!doctype html>\n${page.documentElement.outerHTML}`, "text/html");
}
