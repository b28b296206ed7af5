// What the file holds: problems, runs, and the net of each frame.
const DATA = JSON.parse(document.getElementById("data").textContent);
const ACTIVATION = { tanh: Math.tanh, relu: (z) => Math.max(0, z) }[DATA.activation];
const LAST = DATA.steps.length - 1;

const buffer = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0)).buffer;
const float32 = (text) => new Float32Array(buffer(text));
const float16 = (text) => Float32Array.from(new Uint16Array(buffer(text)), fromHalf);

function fromHalf(bits) {
  const sign = bits >> 15 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023;
  if (exponent === 0) return sign * fraction * 2 ** -24;
  if (exponent === 31) return fraction ? NaN : sign * Infinity;
  return sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

const PROBLEMS = Object.fromEntries(Object.entries(DATA.problems).map(([name, text]) => [name, float32(text)]));
const POINTS = DATA.n; // the first half of each problem's points is class 0, the second class 1
const decoded = (run) => ({ params: float32(run.params), grads: float16(run.grads), loss: float32(run.loss) });
const RUNS = DATA.runs.map((run) => ({ ...run, ...decoded(run) }));
const CHOICES = ["problem", "hidden", "rate", "momentum"];

function runOf(choice) {
  return RUNS.find((run) => CHOICES.every((name) => String(run[name]) === String(choice[name])));
}

// The numbers of a frame by their place in the net: w1, w2, b, v have one for each hidden unit.
function netAt(run, frame, numbers = run.params) {
  const h = run.hidden, start = frame * (4 * h + 1);
  const part = (i) => numbers.subarray(start + i * h, start + (i + 1) * h);
  return { hidden: h, w1: part(0), w2: part(1), b: part(2), v: part(3), c: numbers[start + 4 * h] };
}

function unit(net, j, x1, x2) {
  return ACTIVATION(net.w1[j] * x1 + net.w2[j] * x2 + net.b[j]);
}

function logit(net, x1, x2) {
  let sum = net.c;
  for (let j = 0; j < net.hidden; j++) sum += net.v[j] * unit(net, j, x1, x2);
  return sum;
}

const classOf = (i) => (i < POINTS / 2 ? 0 : 1);

function wrongPoints(run, net) {
  const x = PROBLEMS[run.problem];
  return [...Array(POINTS).keys()].filter((i) => (logit(net, x[2 * i], x[2 * i + 1]) > 0 ? 1 : 0) !== classOf(i));
}

function gradientLength(run, frame) {
  const size = 4 * run.hidden + 1;
  return Math.hypot(...run.grads.subarray(frame * size, (frame + 1) * size));
}

// The largest sizes in all frames of a run, the units of its bars: hidden units' and output's weights, gradients.
function sizesOf(run) {
  const size = 4 * run.hidden + 1, most = { hidden: 1e-12, output: 1e-12, slope: 1e-12 };
  const grow = (name, value) => { if (Number.isFinite(value)) most[name] = Math.max(most[name], Math.abs(value)); };
  run.params.forEach((value, i) => grow(i % size < 3 * run.hidden ? "hidden" : "output", value));
  run.grads.forEach((value) => grow("slope", value));
  return most;
}

function tidy(value) {
  if (!Number.isFinite(value)) return "not a number";
  const size = Math.abs(value);
  if (size === 0) return "0";
  return size >= 100 ? value.toFixed(0) : size >= 0.001 ? value.toPrecision(3) : value.toExponential(1);
}
