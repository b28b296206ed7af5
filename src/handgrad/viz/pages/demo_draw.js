// How a frame looks. Every function draws all of its canvas anew, in the colours of the page.
const REACH = 1.25; // the plane is drawn from -REACH to REACH
const GRID = 97;

function colours() {
  const style = getComputedStyle(document.documentElement);
  const names = ["card", "ink", "soft", "line", "faint", "blue", "orange", "accent"];
  return Object.fromEntries(names.map((name) => [name, style.getPropertyValue(`--${name}`).trim()]));
}

// A cleared canvas as sharp as the screen: context, width and height in CSS pixels.
function sheet(canvas) {
  const box = canvas.getBoundingClientRect(), ratio = window.devicePixelRatio || 1;
  canvas.width = Math.max(1, Math.round(box.width * ratio));
  canvas.height = Math.max(1, Math.round(box.height * ratio));
  const c = canvas.getContext("2d");
  c.setTransform(ratio, 0, 0, ratio, 0, 0);
  c.lineCap = c.lineJoin = "round";
  return { c, w: box.width, h: box.height };
}

function rgb(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

// From -1, blue, over the card's own colour to 1, orange.
function shade(paint, strength) {
  const card = rgb(paint.card), ends = [rgb(paint.blue), rgb(paint.orange)];
  return (value) => {
    const t = strength * Math.min(1, Math.abs(value)), end = ends[value > 0 ? 1 : 0];
    return card.map((channel, i) => channel + t * (end[i] - channel));
  };
}

// A field of size x size values, top row first, as a small picture.
function picture(values, size, tone) {
  const canvas = document.createElement("canvas");
  canvas.width = canvas.height = size;
  const c = canvas.getContext("2d"), image = c.createImageData(size, size);
  values.forEach((value, i) => image.data.set([...tone(value), 255], 4 * i));
  c.putImageData(image, 0, 0);
  return canvas;
}

function field(size, f) {
  const values = new Float32Array(size * size), at = (i) => REACH * ((2 * i) / (size - 1) - 1);
  for (let row = 0; row < size; row++)
    for (let column = 0; column < size; column++) values[row * size + column] = f(at(column), -at(row));
  return values;
}

// The picture over a square, its outermost values exactly on the edges.
function spread(c, small, x, y, side) {
  c.imageSmoothingEnabled = true;
  c.drawImage(small, 0.5, 0.5, small.width - 1, small.height - 1, x, y, side, side);
}

const sure = (o) => 2 / (1 + Math.exp(-o)) - 1; // the probability of orange less that of blue

function drawMap(canvas, run, net, hover, withLines) {
  const { c, w } = sheet(canvas), paint = colours(), o = field(GRID, (x1, x2) => logit(net, x1, x2));
  spread(c, picture(o.map(sure), GRID, shade(paint, 0.62)), 0, 0, w);
  if (withLines) for (let j = 0; j < net.hidden; j++) drawZero(c, w, net, j, paint, hover);
  c.strokeStyle = paint.ink;
  c.lineWidth = 3;
  contour(c, o, w);
  const x = PROBLEMS[run.problem], wrong = new Set(wrongPoints(run, net)), at = (v) => ((v / REACH + 1) * w) / 2;
  for (let i = 0; i < POINTS; i++) drawPoint(c, at(x[2 * i]), at(-x[2 * i + 1]), classOf(i), wrong.has(i), paint);
}

function drawPoint(c, x, y, kind, wrong, paint) {
  c.beginPath();
  if (kind === 0) c.arc(x, y, 4, 0, 7);
  else [[0, -5], [5, 0], [0, 5], [-5, 0]].forEach(([dx, dy]) => c.lineTo(x + dx, y + dy));
  c.closePath();
  c.fillStyle = kind ? paint.orange : paint.blue;
  c.strokeStyle = paint.card;
  c.lineWidth = 1.5;
  c.stroke();
  c.fill();
  if (!wrong) return;
  c.beginPath();
  c.arc(x, y, 7.5, 0, 7);
  c.strokeStyle = paint.ink;
  c.stroke();
}

// The line on which a hidden unit is 0, with its number where it leaves the plane.
function drawZero(c, side, net, j, paint, hover) {
  const a = net.w1[j], b = net.w2[j], square = a * a + b * b;
  if (!(square > 1e-9)) return;
  const near = [(-net.b[j] * a) / square, (-net.b[j] * b) / square], along = [-b, a].map((v) => v / Math.sqrt(square));
  let low = -9, high = 9;
  for (const i of [0, 1]) {
    if (Math.abs(along[i]) < 1e-9) { if (Math.abs(near[i]) > REACH) return; continue; }
    const ends = [-REACH, REACH].map((edge) => (edge - near[i]) / along[i]).sort((p, q) => p - q);
    low = Math.max(low, ends[0]);
    high = Math.min(high, ends[1]);
  }
  if (low >= high) return;
  const at = (t) => near.map((v, i) => (((i ? -1 : 1) * (v + t * along[i])) / REACH + 1) * (side / 2));
  c.strokeStyle = c.fillStyle = hover === j ? paint.accent : paint.ink;
  c.globalAlpha = hover === j ? 1 : hover === null ? 0.55 : 0.2;
  c.lineWidth = hover === j ? 3 : 1.5;
  c.setLineDash([6, 5]);
  c.beginPath();
  c.moveTo(...at(low));
  c.lineTo(...at(high));
  c.stroke();
  c.setLineDash([]);
  const [x, y] = at(high - 0.14 - 0.09 * (j % 2)), away = 9;
  label(c, String(j + 1), x + away * along[1], y + away * along[0], { size: 12, bold: true });
  c.globalAlpha = 1;
}

// The line o = 0, cell by cell of the grid: straight between the places where it crosses the cell's sides.
function contour(c, o, side) {
  const step = side / (GRID - 1), corner = (column, row) => o[row * GRID + column];
  c.beginPath();
  for (let row = 0; row < GRID - 1; row++)
    for (let column = 0; column < GRID - 1; column++) {
      const ends = [[[0, 0], [1, 0]], [[1, 0], [1, 1]], [[1, 1], [0, 1]], [[0, 1], [0, 0]]];
      const crossings = [];
      for (const [p, q] of ends) {
        const u = corner(column + p[0], row + p[1]), v = corner(column + q[0], row + q[1]);
        if (u > 0 === v > 0) continue;
        const t = u / (u - v);
        crossings.push([column + p[0] + t * (q[0] - p[0]), row + p[1] + t * (q[1] - p[1])].map((z) => z * step));
      }
      for (let i = 0; i + 1 < crossings.length; i += 2) { c.moveTo(...crossings[i]); c.lineTo(...crossings[i + 1]); }
    }
  c.stroke();
}

function label(c, text, x, y, { size = 13, bold = false, align = "center" } = {}) {
  c.font = `${bold ? "600 " : ""}${size}px system-ui, "DejaVu Sans", sans-serif`;
  c.textAlign = align;
  c.textBaseline = "middle";
  c.fillText(text, x, y);
}

// Net and bars share their rows: one for each hidden unit, one for the output.
const HEAD = 26;
const rowAt = (i, rows, h) => HEAD + ((h - HEAD) * (i + 0.5)) / rows;

function drawNet(canvas, net, sizes, hover) {
  const { c, w, h } = sheet(canvas), paint = colours(), rows = net.hidden + 1, left = 16, middle = 0.5 * w;
  const room = (h - HEAD) / rows, side = Math.min(0.84 * room, 52), out = Math.min(62, 0.24 * w), right = w - out - 22;
  const height = rowAt((net.hidden - 1) / 2, rows, h), inputs = [height - 0.17 * h, height + 0.17 * h];
  const edge = (x0, y0, x1, y1, weight, size, alive) => {
    c.strokeStyle = weight > 0 ? paint.orange : paint.blue;
    c.globalAlpha = alive ? 0.85 : 0.15;
    c.lineWidth = 0.6 + 7 * Math.min(1, Math.abs(weight) / size);
    c.beginPath();
    c.moveTo(x0, y0);
    c.bezierCurveTo((x0 + x1) / 2, y0, (x0 + x1) / 2, y1, x1, y1);
    c.stroke();
    c.globalAlpha = 1;
  };
  for (let j = 0; j < net.hidden; j++) {
    const y = rowAt(j, rows, h), alive = hover === null || hover === j;
    edge(left + 14, inputs[0], middle - side / 2, y, net.w1[j], sizes.hidden, alive);
    edge(left + 14, inputs[1], middle - side / 2, y, net.w2[j], sizes.hidden, alive);
    edge(middle + side / 2, y, right, height, net.v[j], sizes.output, alive);
  }
  c.fillStyle = paint.soft;
  [["inputs", left + 12], ["hidden", middle], ["output", right + out / 2]].forEach(([text, x]) => label(c, text, x, 10));
  inputs.forEach((y, i) => {
    c.fillStyle = paint.faint;
    c.beginPath();
    c.arc(left, y, 15, 0, 7);
    c.fill();
    c.fillStyle = paint.ink;
    label(c, i ? "x₂" : "x₁", left, y, { bold: true });
  });
  const tone = shade(paint, 0.85), most = DATA.activation === "relu" ? Math.max(...netReach(net)) || 1 : 1;
  for (let j = 0; j < net.hidden; j++) {
    const values = field(17, (x1, x2) => unit(net, j, x1, x2) / most);
    framed(c, picture(values, 17, tone), middle - side / 2, rowAt(j, rows, h) - side / 2, side, hover === j, paint);
  }
  framed(c, picture(field(33, (x1, x2) => sure(logit(net, x1, x2))), 33, tone), right, height - out / 2, out, false, paint);
}

const netReach = (net) => [...net.w1].map((w, j) => REACH * (Math.abs(w) + Math.abs(net.w2[j])) + net.b[j]);

function framed(c, small, x, y, side, chosen, paint) {
  spread(c, small, x, y, side);
  c.strokeStyle = chosen ? paint.accent : paint.soft;
  c.lineWidth = chosen ? 3 : 1;
  c.strokeRect(x, y, side, side);
}

function drawBars(canvas, net, slopes, sizes, hover) {
  const { c, w, h } = sheet(canvas), paint = colours(), rows = net.hidden + 1, names = 40, wide = (w - names) / 4;
  ["from x₁", "from x₂", "bias", "to output"].forEach((text, i) => {
    c.fillStyle = paint.soft;
    label(c, text, names + (i + 0.5) * wide, 10);
  });
  for (let j = 0; j < rows; j++) {
    const y = rowAt(j, rows, h), room = (h - HEAD) / rows, own = j < net.hidden;
    c.fillStyle = hover === j && own ? paint.faint : "transparent";
    c.fillRect(0, y - room / 2, w, room);
    c.fillStyle = paint.ink;
    label(c, own ? String(j + 1) : "out", names - 8, y, { bold: true, align: "right" });
    const its = (part) => [net[part][j], slopes[part][j]];
    const pairs = own ? ["w1", "w2", "b", "v"].map(its) : [null, null, [net.c, slopes.c], null];
    pairs.forEach((pair, i) => {
      const size = own && i < 3 ? sizes.hidden : sizes.output;
      if (pair) drawPair(c, names + (i + 0.5) * wide, y, wide - 12, room, pair, size, sizes.slope, paint);
    });
  }
}

// A weight, thick, and below it its gradient, thin. Weights have a linear scale, gradients one of four powers of ten.
function drawPair(c, x, y, wide, room, [weight, slope], weightSize, slopeSize, paint) {
  const half = wide / 2, thick = Math.min(13, 0.42 * room), thin = 0.5 * thick, top = y - (thick + thin + 2) / 2;
  c.fillStyle = paint.line;
  c.fillRect(x - 0.5, top - 3, 1, thick + thin + 8);
  const bar = (value, length, from, height) => {
    c.fillStyle = value > 0 ? paint.orange : paint.blue;
    c.fillRect(value > 0 ? x : x - length * half, from, length * half, height);
  };
  bar(weight, Math.min(1, Math.abs(weight) / weightSize), top, thick);
  bar(slope, Math.min(1, Math.max(0, 1 + Math.log10(Math.abs(slope) / slopeSize) / 4)), top + thick + 2, thin);
}

function powerText(power) {
  const raised = (sign) => "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"["-0123456789".indexOf(sign)];
  return Math.abs(power) > 2 ? `10${[...String(power)].map(raised).join("")}` : String(Number((10 ** power).toPrecision(1)));
}

// Losses over the frames: those of the other runs of this net pale, the gradient's length dashed, a mark at the frame.
const THUMB = 11; // half the slider's thumb: where its track begins
function drawLoss(canvas, run, others, lengths, frame) {
  const { c, w, h } = sheet(canvas), paint = colours(), foot = 20;
  const all = [...others.flatMap((other) => [...other.loss]), ...lengths].filter((v) => Number.isFinite(v) && v > 0);
  const low = Math.max(-5, Math.floor(Math.log10(Math.min(...all))));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...all))));
  const x = (i) => THUMB + ((w - 2 * THUMB) * i) / LAST;
  const y = (v) => 6 + ((h - foot - 6) * (high - Math.max(low, Math.log10(v)))) / (high - low);
  const skip = Math.ceil((16 * (high - low)) / (h - foot - 6));
  for (let power = low; power <= high; power++) {
    c.fillStyle = c.strokeStyle = paint.line;
    c.lineWidth = 1;
    c.beginPath();
    c.moveTo(THUMB, y(10 ** power));
    c.lineTo(w - THUMB, y(10 ** power));
    c.stroke();
    c.fillStyle = paint.soft;
    if (power < high && (high - power) % skip === 0) label(c, powerText(power), THUMB, y(10 ** power) - 8, { size: 11, align: "left" });
  }
  const every = Math.max(1, Math.ceil((LAST * 52) / (w - 2 * THUMB)));
  for (let i = 0; i <= LAST; i += every)
    label(c, DATA.steps[i].toLocaleString("en"), x(i), h - 8, { size: 11, align: i ? "center" : "left" });
  const line = (values, colour, width, dash = []) => {
    c.strokeStyle = colour;
    c.lineWidth = width;
    c.setLineDash(dash);
    c.beginPath();
    values.forEach((value, i) => { if (value > 0 && Number.isFinite(value)) c.lineTo(x(i), y(value)); });
    c.stroke();
    c.setLineDash([]);
  };
  others.filter((other) => other !== run).forEach((other) => line(other.loss, paint.line, 1.5));
  line(lengths, paint.accent, 2, [5, 5]);
  line(run.loss, paint.ink, 2.5);
  c.strokeStyle = paint.accent;
  c.lineWidth = 1.5;
  c.beginPath();
  c.moveTo(x(frame), 4);
  c.lineTo(x(frame), h - foot);
  c.stroke();
  for (const [value, colour] of [[run.loss[frame], paint.ink], [lengths[frame], paint.accent]]) {
    if (!(value > 0 && Number.isFinite(value))) continue;
    c.fillStyle = colour;
    c.beginPath();
    c.arc(x(frame), y(value), 5, 0, 7);
    c.fill();
  }
}
