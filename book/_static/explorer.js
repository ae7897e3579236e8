/* The rearrangement explorer: Equations 2 to 4 of SAGE for one pair of images, moved by hand.
   A page holds <div class="sage-explorer"> with the images and their saliency maps as JSON; this fills it. */
(function () {
  "use strict";

  // ---- the equations; maps are arrays of h * w numbers, row by row

  /* Gaussian blur, sigma in pixels, reaching ceil(2 sigma) pixels; the border is mirrored, its last pixel not repeated. */
  function smooth(s, h, w, sigma) {
    if (sigma === 0) return Float64Array.from(s);
    const radius = Math.ceil(2 * sigma);
    const weights = Array.from({ length: 2 * radius + 1 }, (_, k) => Math.exp(-0.5 * ((k - radius) / sigma) ** 2));
    const total = weights.reduce((sum, weight) => sum + weight, 0);
    const mirror = (i, n) => (n === 1 ? 0 : (i = Math.abs(i) % (2 * (n - 1)), Math.min(i, 2 * (n - 1) - i)));
    const along = (z, at) => Float64Array.from(z, (_, place) => {
      let sum = 0;
      for (let k = -radius; k <= radius; k++) sum += weights[k + radius] * z[at(place, k)];
      return sum / total;
    });
    const rows = along(s, (place, k) => mirror(Math.floor(place / w) + k, h) * w + (place % w));
    return along(rows, (place, k) => place - (place % w) + mirror((place % w) + k, w));
  }

  /* A map scaled to a sum of `weight`; an empty one, or one that is not finite, counts as uniform. */
  function weighted(s, weight) {
    const total = s.reduce((sum, value) => sum + Math.max(value, 0), 0);
    const good = total > 0 && total < Infinity;
    return s.map((value) => (Math.max(weight, 1e-12) * (good ? Math.max(value, 0) : 1)) / (good ? total : s.length));
  }

  /* Where place (i, j) of the frame comes from in an image moved by tau, or -1: Equation 3. */
  function source(i, j, tau, h, w) {
    const [row, column] = [i - tau[0], j - tau[1]];
    return row >= 0 && row < h && column >= 0 && column < w ? row * w + column : -1;
  }

  /* Equation 2: the first image's share of each pixel, when the second is moved by tau. */
  function mask(a, b, tau, h, w) {
    return a.map((value, place) => {
      const from = source(Math.floor(place / w), place % w, tau, h, w);
      const total = value + (from < 0 ? 0 : b[from]);
      return total > 0 ? value / total : 0;
    });
  }

  /* Equation 4 for every shift, (2h-1)(2w-1) of them: all of a, what stays of b, less twice the overlap's loss. */
  function totals(a, b, h, w) {
    const sum = a.reduce((all, value) => all + value, 0);
    const v = new Float64Array((2 * h - 1) * (2 * w - 1));
    for (let down = 1 - h, k = 0; down < h; down++) {
      for (let right = 1 - w; right < w; right++, k++) {
        let kept = sum;
        for (let i = Math.max(0, down); i < Math.min(h, h + down); i++) {
          for (let j = Math.max(0, right); j < Math.min(w, w + right); j++) {
            const p = a[i * w + j];
            const q = b[(i - down) * w + j - right];
            if (q > 0) kept += q - (2 * p * q) / (p + q);
          }
        }
        v[k] = kept;
      }
    }
    return v;
  }

  // ---- drawing

  const VIRIDIS = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
  const FIRST = [0, 114, 178]; // blue and orange, as the frames
  const SECOND = [213, 94, 0];
  const OWNER = [SECOND, [235, 235, 235], FIRST];

  function colour(list, share) {
    const at = Math.min(Math.max(share, 0), 1) * (list.length - 1);
    const low = Math.min(Math.floor(at), list.length - 2);
    return list[low].map((value, c) => value + (at - low) * (list[low + 1][c] - value));
  }

  function paint(canvas, width, height, colourOf) {
    [canvas.width, canvas.height] = [width, height];
    const context = canvas.getContext("2d");
    const image = context.createImageData(width, height);
    image.data.fill(255);
    for (let k = 0; k < width * height; k++) image.data.set(colourOf(k), 4 * k);
    context.putImageData(image, 0, 0);
    return canvas;
  }

  function make(name, attributes, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  function numbers(text, Kind) {
    return new Kind(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer);
  }

  // ---- one explorer

  function explore(place, number) {
    const data = JSON.parse(place.querySelector("script").textContent);
    place.querySelector("p").remove(); // what stands there without scripts
    const { height: h, width: w, mean } = data;
    const images = data.images.map(({ name, pixels, saliency }) => ({
      name, pixels: numbers(pixels, Uint8Array), saliency: numbers(saliency, Float32Array) }));
    const state = { first: data.pair[0], second: data.pair[1], tau: [0, 0], lam: data.lam, sigma: data.sigma, u: data.u, sample: [] };
    let a, b, v, best, chosen, m; // the weighted maps, Equation 4 and its best shifts, the mask

    const columns = 2 * w - 1;
    const index = (tau) => (tau[0] + h - 1) * columns + tau[1] + w - 1;
    const shiftOf = (k) => [Math.floor(k / columns) - h + 1, (k % columns) - w + 1];
    const SAME = 1e-9; // v closer than this counts as equal, and of equals the first is best, as in the library
    const highest = (list) => list.reduce((top, k) => (v[k] > v[top] + SAME ? k : top), list[0]);
    const every = Array.from({ length: (2 * h - 1) * columns }, (_, k) => k);

    /* A part of all shifts, 1 %, at random, as SAGE draws them for a step. */
    function draw() {
      const left = every.slice();
      const many = Math.max(1, Math.floor(data.fraction * every.length));
      state.sample = Array.from({ length: many }, () => left.splice(Math.floor(Math.random() * left.length), 1)[0]);
    }

    // the page's elements
    const canvas = (label) => make("canvas", { role: "img", "aria-label": label });
    const views = {
      stage: make("canvas", { tabindex: "0", role: "application", "aria-roledescription": "movable picture",
        "aria-label": "The second image over the first. Arrow keys move it by a pixel, with Shift by four." }),
      maps: canvas("The two saliency maps, the first blue, the second moved and orange"),
      mask: canvas("The mask: blue where the first image shows, orange where the second does"),
      mix: canvas("The mixed image"),
      landscape: canvas("Total saliency of every shift, with this shift, the sample, its best and the best of all"),
    };
    const titles = {
      stage: "drag orange over blue", maps: "both maps", mask: "mask: who shows", mix: "mix",
    };
    const range = make("span", {}); // of the landscape's colours
    const figure = (name, ...words) => make("figure", {}, views[name], make("figcaption", {}, ...words));
    const figures = ["stage", "maps", "mask", "mix"].map((name) => figure(name, titles[name]));
    figures[0].className = "explorer-stage";
    figures.splice(1, 0, figure("landscape", "v of every shift, ", range));
    figures[1].className = "explorer-landscape";
    const slider = (name, low, high, step) => {
      const input = make("input", { type: "range", min: low, max: high, step });
      const output = make("span", { class: "explorer-value", "aria-hidden": "true" });
      return { input, output, label: make("label", {}, make("span", {}, name), input, output) };
    };
    const sliders = {
      lam: slider("λ, weight of the first map", 0, state.u, 0.01),
      sigma: slider("σ, blur in pixels", 0, 4, 0.25),
      u: slider("u, bound of λ", 0.05, 1, 0.05),
    };
    const shifts = ["shift down", "shift right"].map((name, axis) => {
      const most = [h, w][axis] - 1;
      const input = make("input", { type: "number", min: -most, max: most, step: 1, value: 0 });
      input.addEventListener("change", () => move(axis ? [state.tau[0], +input.value] : [+input.value, state.tau[1]]));
      return { input, label: make("label", {}, make("span", {}, name), input) };
    });
    const button = (text, act) => {
      const made = make("button", { type: "button" }, text);
      made.addEventListener("click", act);
      return made;
    };
    const values = make("p", { class: "explorer-values" });
    const spoken = make("p", { role: "status", class: "explorer-spoken" }); // the same, when the image rests
    let [rest, ready] = [0, false]; // nothing is spoken before somebody has done something

    function choice(which, label) {
      const group = make("fieldset", {}, make("legend", {}, label));
      images.forEach(({ name, pixels }, k) => {
        const radio = make("input", { type: "radio", name: `${which}-of-${number}`, value: k, "aria-label": name });
        radio.checked = state[which] === k;
        radio.addEventListener("change", () => { state[which] = k; weigh(); });
        const picture = paint(make("canvas", { "aria-hidden": "true" }), w, h, (place) => pixels.subarray(3 * place, 3 * place + 3));
        group.append(make("label", {}, radio, picture));
      });
      return group;
    }

    /* New maps, so a new Equation 4. */
    function weigh() {
      a = weighted(smooth(images[state.first].saliency, h, w, state.sigma), state.lam);
      b = weighted(smooth(images[state.second].saliency, h, w, state.sigma), 1 - state.lam);
      v = totals(a, b, h, w);
      best = highest(every);
      show();
    }

    function move(tau) {
      const inside = (by, most) => Math.max(-most, Math.min(most, Math.round(by) || 0));
      state.tau = [inside(tau[0], h - 1), inside(tau[1], w - 1)];
      show();
    }

    function show() {
      chosen = highest(state.sample);
      m = mask(a, b, state.tau, h, w);
      const [one, two] = [images[state.first].pixels, images[state.second].pixels];
      const from = (place) => source(Math.floor(place / w), place % w, state.tau, h, w);
      const second = (place) => (from(place) < 0 ? mean : two.subarray(3 * from(place), 3 * from(place) + 3));
      paint(views.mask, w, h, (place) => colour(OWNER, m[place]));
      paint(views.mix, w, h, (place) => [0, 1, 2].map((c) => m[place] * one[3 * place + c] + (1 - m[place]) * second(place)[c]));
      const [highA, highB] = [Math.max(...a), Math.max(...b)];
      paint(views.maps, w, h, (place) => {
        const [p, q] = [a[place] / highA, from(place) < 0 ? 0 : b[from(place)] / highB].map(Math.sqrt); // lifts what is faint
        return [0, 1, 2].map((c) => Math.min(255, FIRST[c] * p + SECOND[c] * q));
      });
      drawStage(one, two);
      drawLandscape();
      const current = v[index(state.tau)];
      const gamma = m.reduce((sum, value) => sum + value, 0) / m.length;
      const rank = 1 + v.reduce((count, value) => count + (value > current + SAME), 0);
      values.textContent = `${images[state.first].name} and ${images[state.second].name}, λ ${state.lam.toFixed(2)}. `
        + `Shift ${state.tau[0]} down, ${state.tau[1]} right. Share of the first image in the label γ ${gamma.toFixed(3)}. `
        + `Saliency kept v ${current.toFixed(3)}, rank ${rank} of ${v.length}; best of the sample ${v[chosen].toFixed(3)}, `
        + `best of all ${v[best].toFixed(3)}.`;
      clearTimeout(rest);
      if (ready) rest = setTimeout(() => { spoken.textContent = values.textContent; }, 400);
      range.textContent = `${Math.min(...v).toFixed(2)} (dark) to ${v[best].toFixed(2)} (bright)`;
      Object.assign(place.dataset, { gamma, v: current, down: state.tau[0], right: state.tau[1] });
      shifts.forEach(({ input }, axis) => { input.value = state.tau[axis]; });
      for (const [name, { input, output }] of Object.entries(sliders)) {
        if (name === "lam") input.max = state.u;
        input.value = state[name];
        output.textContent = state[name].toFixed(2);
      }
    }

    const ZOOM = 6;
    /* The frame with a margin of half an image, the first image in it, the second over it, half transparent. */
    function drawStage(one, two) {
      const context = Object.assign(views.stage, { width: 2 * w * ZOOM, height: 2 * h * ZOOM }).getContext("2d");
      context.imageSmoothingEnabled = false;
      const [left, up] = [(w / 2) * ZOOM, (h / 2) * ZOOM];
      const still = (pixels) => paint(document.createElement("canvas"), w, h, (place) => pixels.subarray(3 * place, 3 * place + 3));
      const [x, y] = [left + state.tau[1] * ZOOM, up + state.tau[0] * ZOOM];
      context.drawImage(still(one), left, up, w * ZOOM, h * ZOOM);
      context.globalAlpha = 0.6;
      context.drawImage(still(two), x, y, w * ZOOM, h * ZOOM);
      context.globalAlpha = 1;
      for (const [style, at] of [["#0072b2", [left, up]], ["#d55e00", [x, y]]]) {
        Object.assign(context, { strokeStyle: style, lineWidth: 3 });
        context.strokeRect(...at, w * ZOOM, h * ZOOM);
      }
    }

    function drawLandscape() {
      const [low, high] = [Math.min(...v), Math.max(...v)];
      const small = paint(document.createElement("canvas"), columns, 2 * h - 1,
        (k) => colour(VIRIDIS, high - low > SAME ? (v[k] - low) / (high - low) : 0));
      const context = Object.assign(views.landscape, { width: columns * ZOOM, height: (2 * h - 1) * ZOOM }).getContext("2d");
      context.imageSmoothingEnabled = false;
      context.drawImage(small, 0, 0, columns * ZOOM, (2 * h - 1) * ZOOM);
      const round = (k, radius, style, lineWidth) => {
        const [down, right] = shiftOf(k);
        context.beginPath();
        context.arc((right + w - 0.5) * ZOOM, (down + h - 0.5) * ZOOM, radius * ZOOM, 0, 2 * Math.PI);
        Object.assign(context, { strokeStyle: style, fillStyle: style, lineWidth });
        if (lineWidth) context.stroke();
        else context.fill();
      };
      const dot = (k, radius, style, rim) => { round(k, radius + 0.4, rim, 0); round(k, radius, style, 0); };
      const ring = (k, radius, style, rim) => { round(k, radius, rim, 9); round(k, radius, style, 4); };
      state.sample.forEach((k) => dot(k, 0.6, "#ffffff", "#000000"));
      ring(chosen, 2, "#ffffff", "#000000");
      dot(best, 1, "#d00000", "#ffffff");
      ring(index(state.tau), 3, "#000000", "#ffffff");
    }

    // what people do
    let due = 0;
    for (const [name, { input }] of Object.entries(sliders)) {
      input.addEventListener("input", () => {
        state[name] = +input.value;
        state.lam = Math.min(state.lam, state.u); // lambda is drawn below u
        cancelAnimationFrame(due); // once for each picture of the screen
        due = requestAnimationFrame(weigh);
      });
    }
    const KEYS = { ArrowUp: [-1, 0], ArrowDown: [1, 0], ArrowLeft: [0, -1], ArrowRight: [0, 1] };
    views.stage.addEventListener("keydown", (event) => {
      if (event.altKey || event.ctrlKey || event.metaKey || !(event.key in KEYS)) return;
      event.preventDefault();
      move(KEYS[event.key].map((by, axis) => state.tau[axis] + by * (event.shiftKey ? 4 : 1)));
    });
    let grabbed = null;
    views.stage.addEventListener("pointerdown", (event) => {
      if (event.button || grabbed) return; // the first finger, the first button
      views.stage.setPointerCapture(event.pointerId);
      grabbed = { id: event.pointerId, x: event.clientX, y: event.clientY, tau: state.tau };
    });
    views.stage.addEventListener("pointermove", (event) => {
      if (!grabbed || grabbed.id !== event.pointerId) return;
      const pixel = views.stage.getBoundingClientRect().width / (2 * w); // of the screen, for one of the image
      move([grabbed.tau[0] + (event.clientY - grabbed.y) / pixel, grabbed.tau[1] + (event.clientX - grabbed.x) / pixel]);
    });
    views.stage.addEventListener("lostpointercapture", () => { grabbed = null; });
    views.landscape.addEventListener("click", (event) => {
      const box = views.landscape.getBoundingClientRect();
      move([Math.floor(((event.clientY - box.top) / box.height) * (2 * h - 1)) - h + 1,
        Math.floor(((event.clientX - box.left) / box.width) * columns) - w + 1]);
    });

    place.append(
      make("div", { class: "explorer-pairs" }, choice("first", "first image"), choice("second", "second image")),
      make("div", { class: "explorer-controls" }, ...Object.values(sliders).map((each) => each.label), ...shifts.map((each) => each.label)),
      make("div", { class: "explorer-controls" },
        button("draw λ and a sample, as a step does", () => {
          state.lam = Math.floor(100 * Math.random() * state.u) / 100; // as the slider shows it
          draw();
          weigh();
          move(shiftOf(chosen));
        }),
        button("best of the sample", () => move(shiftOf(chosen))),
        button("best of all", () => move(shiftOf(best))),
        button("no shift", () => move([0, 0]))),
      values, make("div", { class: "explorer-views" }, ...figures), spoken);
    place.explorer = { state, totals: () => Array.from(v), mask: () => Array.from(m), best: () => shiftOf(best), chosen: () => shiftOf(chosen) };
    draw();
    weigh();
    ready = true;
  }

  document.addEventListener("DOMContentLoaded", () => document.querySelectorAll(".sage-explorer").forEach(explore));
})();
