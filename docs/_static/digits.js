// The drawing on the start page: softmax regression, computed here. Nothing leaves the page.
"use strict";

(() => {
  const SIDE = 28; // an image of MNIST has 28 x 28 pixels
  const BOX = 20; // and its ink fits a box of 20 x 20
  const PEN = 2.6; // pixels: about as wide as the strokes in MNIST are
  const SMALLEST = 0.12; // of the drawing's width: what is smaller, a dot for example, is not blown up
  const FOR = [200, 85, 61]; // red
  const AGAINST = [47, 102, 144]; // blue
  // A five, drawn in advance, in shares of the drawing's width.
  const SAMPLE = [
    [[0.68, 0.2], [0.42, 0.21], [0.38, 0.46], [0.5, 0.43], [0.62, 0.49], [0.66, 0.62], [0.6, 0.75], [0.47, 0.81], [0.33, 0.76]],
  ];

  const bytes = (text) => Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
  const coef = new Float32Array(bytes(DIGITS_MODEL.coef).buffer);
  const spread = bytes(DIGITS_MODEL.spread);
  const { intercept } = DIGITS_MODEL;
  const weights = intercept.map((_, k) => coef.subarray(k * SIDE * SIDE, (k + 1) * SIDE * SIDE));

  const root = document.getElementById("digits");
  const paper = root.querySelector(".digits-paper");
  const seen = root.querySelector(".digits-seen");
  const verdict = root.querySelector(".digits-verdict");
  const rows = weights.map((_, digit) => makeRow(digit));
  let strokes = SAMPLE;
  let isSample = true;

  function makeRow(digit) {
    const row = document.createElement("li");
    row.innerHTML = `<b>${digit}</b><canvas width="${SIDE}" height="${SIDE}"></canvas><span class="digits-bar"><i></i></span><output></output>`;
    root.querySelector("ol").append(row);
    return { row, tile: row.querySelector("canvas"), bar: row.querySelector("i"), percent: row.querySelector("output") };
  }

  // ---- from a drawing to an image, as MNIST was made

  function trace(context, lineWidth) {
    context.lineWidth = lineWidth;
    context.lineCap = context.lineJoin = "round";
    for (const stroke of strokes) {
      context.beginPath();
      stroke.forEach(([x, y]) => context.lineTo(x, y));
      if (stroke.length === 1) context.lineTo(stroke[0][0], stroke[0][1] + 1e-4); // a dot
      context.stroke();
    }
  }

  const sketch = Object.assign(document.createElement("canvas"), { width: SIDE, height: SIDE });
  const pen = sketch.getContext("2d", { willReadFrequently: true });

  // How black each pixel is, 0 to 255, where the drawing is scaled and then moved.
  function render(scale, left, top) {
    pen.setTransform(1, 0, 0, 1, 0, 0);
    pen.clearRect(0, 0, SIDE, SIDE);
    pen.setTransform(scale, 0, 0, scale, left, top);
    trace(pen, PEN / scale);
    return pen.getImageData(0, 0, SIDE, SIDE).data.filter((_, i) => i % 4 === 3);
  }

  // The ink in a box of 20 x 20, its centre of mass in the middle of 28 x 28.
  function image() {
    const points = strokes.flat();
    const [xs, ys] = [points.map(([x]) => x), points.map(([, y]) => y)];
    const [left, right, top, bottom] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
    const scale = (BOX - PEN) / Math.max(right - left, bottom - top, SMALLEST);
    const dx = (SIDE - scale * (left + right)) / 2;
    const dy = (SIDE - scale * (top + bottom)) / 2;
    let [mass, x, y] = [0, 0, 0];
    render(scale, dx, dy).forEach((ink, j) => {
      mass += ink;
      x += ink * ((j % SIDE) + 0.5);
      y += ink * (Math.floor(j / SIDE) + 0.5);
    });
    return render(scale, dx + SIDE / 2 - x / mass, dy + SIDE / 2 - y / mass);
  }

  // ---- the model

  function softmax(logits) {
    const largest = Math.max(...logits);
    const exponentials = logits.map((logit) => Math.exp(logit - largest));
    const sum = exponentials.reduce((a, b) => a + b);
    return exponentials.map((exponential) => exponential / sum);
  }

  const logit = (x, k) => weights[k].reduce((sum, weight, j) => sum + weight * x[j], intercept[k]);

  // ---- what is shown

  function paint(canvas, colour) {
    const context = canvas.getContext("2d");
    const pixels = context.createImageData(SIDE, SIDE);
    for (let j = 0; j < SIDE * SIDE; j += 1) pixels.data.set(colour(j), 4 * j);
    context.putImageData(pixels, 0, 0);
  }

  const signed = (value) => [...(value > 0 ? FOR : AGAINST), Math.min(255, 255 * Math.abs(value))];

  // A digit's template, and on it, stronger, what the ink says for and against the digit: the terms of its logit.
  function showTemplates(x) {
    const strongest = (values) => Math.max(...values.map((of) => of.reduce((m, v) => Math.max(m, Math.abs(v)), 0)));
    const votes = weights.map((weight) => weight.map((w, j) => w * spread[j]));
    const terms = weights.map((weight) => weight.map((w, j) => w * x[j]));
    const [ofVotes, ofTerms] = [strongest(votes), strongest(terms) || 1];
    const faint = strokes.length ? 0.4 : 1; // where the ink is not
    rows.forEach(({ tile }, k) => {
      paint(tile, (j) => signed(x[j] > 25 ? Math.sign(terms[k][j]) * Math.sqrt(Math.abs(terms[k][j]) / ofTerms) : (2 * faint * votes[k][j]) / ofVotes));
    });
  }

  function show() {
    const context = paper.getContext("2d");
    const colour = getComputedStyle(paper).color;
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, paper.width, paper.height);
    context.scale(paper.width, paper.width);
    context.strokeStyle = colour;
    context.globalAlpha = isSample ? 0.45 : 1;
    trace(context, 0.07);
    context.globalAlpha = 1;

    const x = strokes.length ? image() : new Uint8ClampedArray(SIDE * SIDE);
    const [red, green, blue] = colour.match(/[\d.]+/g).map(Number);
    paint(seen, (j) => [red, green, blue, x[j]]);
    showTemplates(x);
    const probabilities = strokes.length ? softmax(weights.map((_, k) => logit(x, k))) : weights.map(() => 0);
    const best = probabilities.indexOf(Math.max(...probabilities));
    rows.forEach(({ row, bar, percent }, k) => {
      const share = 100 * probabilities[k];
      row.classList.toggle("is-best", strokes.length > 0 && k === best);
      bar.style.width = `${share}%`;
      percent.value = strokes.length ? `${share < 10 ? share.toFixed(1) : share.toFixed(0)} %` : "";
    });
    root.classList.toggle("is-yours", !isSample && strokes.length > 0);
    root.dataset.digit = strokes.length ? best : "";
    verdict.textContent = strokes.length ? `It looks like a ${best}.` : "Draw a digit.";
  }

  // ---- mouse, finger or pen

  function position(event) {
    const frame = paper.getBoundingClientRect();
    return [(event.clientX - frame.left) / frame.width, (event.clientY - frame.top) / frame.height];
  }

  paper.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    paper.setPointerCapture(event.pointerId);
    strokes = isSample ? [] : strokes;
    isSample = false;
    strokes.push([position(event)]);
    show();
  });
  paper.addEventListener("pointermove", (event) => {
    if (!paper.hasPointerCapture(event.pointerId)) return;
    strokes.at(-1).push(position(event));
    show();
  });
  root.querySelector("button").addEventListener("click", () => {
    strokes = [];
    isSample = false;
    show();
  });
  // Another theme, another colour of ink.
  new MutationObserver(show).observe(document.documentElement, { attributeFilter: ["data-theme"] });

  root.querySelector(".digits-error").textContent = `${DIGITS_MODEL.error} %`;
  root.hidden = false;
  show();
})();
