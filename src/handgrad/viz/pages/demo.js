// Choice, slider and play; each change draws the frame anew.
const $ = (id) => document.getElementById(id);
const state = { ...DATA.first, frame: 0, hover: null, timer: null };
const TITLES = { problem: "Problem", hidden: "Hidden units", rate: "Learning rate η", momentum: "Momentum β" };
const PRESETS = [
  ["Two hidden units: can they close the circle?", "circle", 2, 1, 0.9],
  ["Three hidden units: can those?", "circle", 3, 1, 0.9],
  ["A learning rate ten times as large: ten times as fast?", "circle", 3, 10, 0],
  ["Spirals, small rate, no momentum: there by the end?", "spirals", 8, 0.1, 0],
  ["The same with momentum 0.9?", "spirals", 8, 0.1, 0.9],
  ["Xor in all of the plane: how many lines does it take?", "xor", 2, 1, 0.9],
];

const current = () => runOf(state);
const kin = (run) => RUNS.filter((other) => other.problem === run.problem && other.hidden === run.hidden);

function draw() {
  const run = current(), frame = state.frame, net = netAt(run, frame), slopes = netAt(run, frame, run.grads);
  run.sizes ??= sizesOf(run);
  run.lengths ??= DATA.steps.map((_, i) => gradientLength(run, i));
  say(run, frame, wrongPoints(run, net).length);
  drawMap($("map"), run, net, state.hover, $("lines").checked);
  drawNet($("net"), net, run.sizes, state.hover);
  drawBars($("bars"), net, slopes, run.sizes, state.hover);
  drawLoss($("loss"), run, kin(run), run.lengths, frame);
  if ($("numbers").open) fillTable(net, slopes);
}

// Everything that stands in words: titles, numbers, and what canvases show for those who cannot see them.
function say(run, frame, wrong) {
  const share = Math.round((100 * (POINTS - wrong)) / POINTS), loss = tidy(run.loss[frame]);
  const step = DATA.steps[frame].toLocaleString("en"), last = DATA.steps[LAST].toLocaleString("en");
  $("map-title").textContent = `${wrong ? `${share} % of the` : "All"} points are right at step ${step}`;
  const facts = { step: `${step} of ${last}`, loss, gradient: tidy(run.lengths[frame]), wrong: `${wrong} of ${POINTS}` };
  const texts = Object.entries(facts).map(([name, value]) => `<span><span class="soft">${name}</span> <b>${value}</b></span>`);
  $("readout").innerHTML = texts.join(" ");
  const { hidden, output, slope } = run.sizes;
  $("scales").textContent = `longest bars: hidden ${tidy(hidden)}, output ${tidy(output)}, gradient ${tidy(slope)}`;
  $("step").value = frame;
  $("step").setAttribute("aria-valuetext", `step ${step}, loss ${loss}, ${share} % right`);
  const labels = {
    map: `The plane with ${POINTS} points of two classes, ${share} % on the right side of the boundary at step ${step}.`,
    net: `Diagram: two inputs, ${run.hidden} hidden units, one output; the numbers are in the table below.`,
    bars: "A bar for each weight and for its gradient; the numbers are in the table below.",
    loss: `Loss over the steps, from ${tidy(run.loss[0])} to ${tidy(run.loss[LAST])}; now ${loss}.`,
  };
  for (const [id, text] of Object.entries(labels)) $(id).setAttribute("aria-label", text);
}

function fillTable(net, slopes) {
  const head = ["unit", "from x₁", "gradient", "from x₂", "gradient", "bias", "gradient", "to output", "gradient"];
  const both = (part, j) => [net[part][j], slopes[part][j]].map(tidy);
  const rows = [...Array(net.hidden).keys()].map((j) => [j + 1, ...["w1", "w2", "b", "v"].flatMap((part) => both(part, j))]);
  rows.push(["output", "", "", "", "", tidy(net.c), tidy(slopes.c), "", ""]);
  const cells = ([first, ...others], tag, scope) => {
    const texts = others.map((text) => `<${tag} class="number">${text}</${tag}>`);
    return `<tr><th scope="${scope}">${first}</th>${texts.join("")}</tr>`;
  };
  const body = rows.map((row) => cells(row, "td", "row")).join("");
  $("table").innerHTML = `<thead>${cells(head, "th", "col")}</thead><tbody>${body}</tbody>`;
}

function show(frame) {
  state.frame = Math.max(0, Math.min(LAST, Math.round(frame)));
  draw();
}

function choose(change) {
  if (!runOf({ ...state, ...change })) return false;
  Object.assign(state, change, { hover: null });
  for (const name of CHOICES)
    for (const input of document.getElementsByName(name)) input.checked = input.value === String(state[name]);
  draw();
  return true;
}

function play(on) {
  clearInterval(state.timer);
  state.timer = on ? setInterval(() => (state.frame < LAST ? show(state.frame + 1) : play(false)), 100) : null;
  if (on && state.frame === LAST) show(0);
  $("play").setAttribute("aria-pressed", String(on));
  $("play").firstElementChild.textContent = on ? "❚❚" : "▶";
  $("play-word").textContent = on ? "Pause" : "Play";
  $("readout").setAttribute("aria-live", on ? "off" : "polite");
}

function buildChoices() {
  for (const name of CHOICES) {
    const values = [...new Set(RUNS.map((run) => run[name]))], set = document.createElement("fieldset");
    const pill = (value) => `<label><input type="radio" name="${name}" value="${value}"><span>${value}</span></label>`;
    set.innerHTML = `<legend>${TITLES[name]}</legend><div class="pills">${values.map(pill).join("")}</div>`;
    set.addEventListener("change", (event) => choose({ [name]: event.target.value }));
    $("choices").append(set);
  }
  $("choices").addEventListener("submit", (event) => event.preventDefault());
  for (const [text, problem, hidden, rate, momentum] of PRESETS) {
    const choice = { problem, hidden, rate, momentum };
    if (!runOf(choice)) continue;
    const item = document.createElement("li"), button = document.createElement("button");
    button.type = "button";
    button.textContent = text;
    button.addEventListener("click", () => {
      choose({ ...choice, frame: 0 });
      play(true);
      $("map-card").scrollIntoView({ block: "nearest" });
    });
    item.append(button);
    $("presets").append(item);
  }
  $("try").hidden = !$("presets").children.length;
}

function unitUnder(event) {
  const box = event.target.getBoundingClientRect(), rows = Number(state.hidden) + 1;
  const row = Math.floor(((event.clientY - box.top - HEAD) / (box.height - HEAD)) * rows);
  return row >= 0 && row < rows - 1 ? row : null;
}

function listen() {
  $("step").max = LAST;
  $("step").addEventListener("input", (event) => { play(false); show(event.target.valueAsNumber); });
  $("play").addEventListener("click", () => play(state.timer === null));
  $("lines").addEventListener("change", draw);
  $("numbers").addEventListener("toggle", draw);
  for (const canvas of [$("net"), $("bars")]) {
    const point = (hover) => { if (hover !== state.hover) { state.hover = hover; draw(); } };
    canvas.addEventListener("pointermove", (event) => point(unitUnder(event)));
    canvas.addEventListener("pointerleave", () => point(null));
  }
  $("loss").addEventListener("pointerdown", (event) => {
    const box = event.target.getBoundingClientRect();
    play(false);
    show((LAST * (event.clientX - box.left - THUMB)) / (box.width - 2 * THUMB));
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== " " || event.target.closest("button, summary, a, [type=checkbox]")) return;
    event.preventDefault();
    play(state.timer === null);
  });
  window.addEventListener("resize", draw);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
}

buildChoices();
listen();
choose({});
window.handgradDemo = {
  show, choose, play, frames: LAST + 1,
  state: () => ({
    ...Object.fromEntries(CHOICES.map((name) => [name, state[name]])), frame: state.frame, playing: state.timer !== null,
  }),
  logit: (x1, x2) => logit(netAt(current(), state.frame), x1, x2),
};
