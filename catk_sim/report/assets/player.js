// The player: one or two rollouts of a scenario, side by side, at the same time and place.

const data = JSON.parse(document.getElementById("data").textContent);
const colors = data.colors;
const LOG = "log";
const find = (id) => document.getElementById(id);
const texts = [...document.querySelectorAll("script.scene")].map((element) => element.textContent);

const table = find("scenarios");
sortable(table);
if (texts.length) startPlayer();

function startPlayer() {
  const shown = { scene: null, paths: null, step: 0, playing: false, agent: null, opened: -1, request: 0 };
  const views = [];
  const option = (value, text) => { const made = document.createElement("option"); made.value = value; made.textContent = text; return made; };
  data.scenes.forEach((id, index) => find("scene").append(option(index, id)));

  async function open(index, policy) {
    const request = ++shown.request;
    let scene;
    try { scene = await readScene(texts[index]); } catch (error) {
      find("problem").textContent = `This scenario cannot be shown: ${error.message}`;
      find("problem").hidden = false;
      return;
    }
    if (request !== shown.request) return;
    find("problem").hidden = true;
    find("scene").value = index;
    Object.assign(shown, { scene, paths: mapPaths(scene), opened: index, agent: null });
    find("step").max = scene.steps - 1;
    listDrives(scene, policy);
    fit();
    setStep(scene.current);
    for (const row of table.tBodies[0].rows) row.classList.toggle("shown", row.dataset.scene === String(index));
  }

  // What can be shown: every rollout of every policy, and the log.
  function listDrives(scene, policy) {
    const entries = [];
    for (const [name, drive] of Object.entries(scene.drives)) {
      drive.rollouts.forEach((_, i) => entries.push([`${name}|${i}`, drive.rollouts.length > 1 ? `${name}, rollout ${i + 1}` : name]));
    }
    entries.push([`${LOG}|0`, LOG]);
    const names = Object.keys(scene.drives);
    const first = policy && names.includes(policy) ? policy : names[0];
    const second = names.find((name) => name !== first);
    const wanted = { left: first ? `${first}|0` : `${LOG}|0`, right: second ? `${second}|0` : "" };
    for (const side of ["left", "right"]) {
      const list = find(side), kept = policy ? null : list.value;
      list.replaceChildren(...(side === "right" ? [option("", "nothing")] : []), ...entries.map(([value, text]) => option(value, text)));
      const known = (value) => [...list.options].some((one) => one.value === value);
      list.value = kept && known(kept) ? kept : wanted[side];
    }
    arrange();
  }

  function chosen(value) {
    const cut = value.lastIndexOf("|"), name = value.slice(0, cut), index = Number(value.slice(cut + 1));
    const drive = name === LOG && !(LOG in shown.scene.drives) ? null : shown.scene.drives[name];
    if (!drive) return { name: LOG, title: LOG, rollout: { tracks: shown.scene.log }, controlled: new Set() };
    const title = drive.rollouts.length > 1 ? `${name}, rollout ${index + 1}` : name;
    return { name, title, rollout: drive.rollouts[index], controlled: drive.controlled };
  }

  function arrange() {
    const wanted = [find("left").value, find("right").value].filter(Boolean);
    while (views.length > wanted.length) views.pop().box.remove();
    while (views.length < wanted.length) views.push(makeView());
    wanted.forEach((value, i) => { views[i].shows = chosen(value); caption(views[i]); });
    draw();
  }

  function makeView() {
    const box = document.createElement("div"), canvas = document.createElement("canvas"), note = document.createElement("div");
    box.className = "view"; note.className = "caption"; box.append(canvas, note); find("views").append(box);
    canvas.setAttribute("role", "img");
    const view = { box, canvas, note, shows: null };
    listen(canvas, (dragged) => { if (dragged) find("follow").checked = false; draw(); }, (x, y) => pick(view, x, y));
    new ResizeObserver(draw).observe(canvas);
    return view;
  }

  function caption(view) {
    const figures = data.figures[shown.scene.id]?.[view.shows.name] ?? {};
    const told = Object.entries(figures).slice(0, 4).map(([key, value]) => `${data.measures[key]} ${value}`);
    const title = document.createElement("b"), rest = document.createElement("span");
    title.textContent = view.shows.title; rest.textContent = told.join(" · ");
    view.note.replaceChildren(title, ...(told.length ? [document.createElement("br"), rest] : []));
    view.canvas.setAttribute("aria-label", `${view.shows.title} in scenario ${shown.scene.id}, from above`);
  }

  function pick(view, x, y) {
    let nearest = null, least = Math.max(3, camera.metres / 40);
    view.shows.rollout.tracks.forEach((track, agent) => {
      if (!isThere(track, shown.step)) return;
      const distance = Math.hypot(track.x[shown.step] - x, track.y[shown.step] - y) - shown.scene.agents[agent].size[1] / 2;
      if (distance < least) { least = distance; nearest = agent; }
    });
    shown.agent = nearest;
    draw();
  }

  function fit() {
    const { scene } = shown, sdc = scene.agents.findIndex((agent) => agent.sdc);
    const track = scene.log[Math.max(0, sdc)], xs = [], ys = [];
    for (let i = 0; i < scene.steps; i++) if (track && isThere(track, i)) { xs.push(track.x[i]); ys.push(track.y[i]); }
    const middle = (values) => values.length ? (Math.min(...values) + Math.max(...values)) / 2 : 0;
    const extent = (values) => values.length ? Math.max(...values) - Math.min(...values) : 0;
    Object.assign(camera, { x: middle(xs), y: middle(ys), metres: Math.max(90, 1.3 * Math.max(extent(xs), extent(ys))) });
    draw();
  }

  let waiting = false;
  function draw() {
    if (waiting || !shown.scene) return;
    waiting = true;
    requestAnimationFrame(() => {
      waiting = false;
      if (find("follow").checked) followAgent();
      views.forEach(drawView);
      tellAgent();
    });
  }

  function followAgent() {
    const agent = shown.agent ?? shown.scene.agents.findIndex((one) => one.sdc);
    const track = views[0]?.shows.rollout.tracks[agent];
    if (track && isThere(track, shown.step)) Object.assign(camera, { x: track.x[shown.step], y: track.y[shown.step] });
  }

  function drawView({ canvas, shows }) {
    const ratio = window.devicePixelRatio || 1, width = canvas.clientWidth, height = canvas.clientHeight;
    if (!width || !height) return;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio); canvas.height = Math.round(height * ratio);
    }
    const context = canvas.getContext("2d"), scale = pixelsPerMetre(canvas), pixel = 1 / scale;
    const { scene, step } = shown, { rollout } = shows;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.fillStyle = colors.ground; context.fillRect(0, 0, width, height);
    context.save();
    context.translate(width / 2, height / 2); context.scale(scale, -scale); context.translate(-camera.x, -camera.y);
    drawMap(context, scene, shown.paths, pixel);
    for (const light of scene.lights) if (light.states[step] >= 0) drawLight(context, ...light.at, light.states[step], pixel);
    if (shown.agent !== null) drawTrail(context, rollout.tracks[shown.agent], scene.current, scene.steps - 1, colors.ink, pixel);
    for (const agent of shows.controlled) {
      drawTrail(context, rollout.tracks[agent], Math.max(0, step - 20), step, colors.agents[scene.agents[agent].type], pixel);
    }
    const order = scene.agents.map((_, i) => i).sort((a, b) => scene.agents[a].sdc - scene.agents[b].sdc);
    for (const i of order) {
      const track = rollout.tracks[i], logged = scene.log[i];
      if (find("ghosts").checked && shows.controlled.has(i) && isThere(logged, step)) {
        drawGhost(context, scene.agents[i], logged.x[step], logged.y[step], logged.heading[step], pixel);
      }
      if (!isThere(track, step)) continue;
      drawAgent(context, scene.agents[i], track.x[step], track.y[step], track.heading[step], pixel, {
        controlled: shows.controlled.has(i) || shows.name === LOG, chosen: shown.agent === i,
        collided: within(rollout.collided?.[i], step), offroad: within(rollout.offroad?.[i], step),
      });
    }
    if (shown.agent !== null) drawChoices(context, choicesAt(scene, rollout, shown.agent, step) ?? [], pixel);
    context.restore();
    drawScaleBar(context, width, height, scale);
  }

  // What is known of the agent that was clicked, in each view.
  function tellAgent() {
    const cards = shown.agent === null ? [] : views.map(({ shows }) => agentCard(shows));
    find("agent").replaceChildren(...cards);
  }

  function agentCard(shows) {
    const { scene, step } = shown, agent = scene.agents[shown.agent], track = shows.rollout.tracks[shown.agent];
    const logged = scene.log[shown.agent], rows = [];
    const number = (value, digits, unit) => Number.isNaN(value) ? "–" : `${value.toFixed(digits)} ${unit}`;
    rows.push(["size", `${agent.size[0].toFixed(1)} × ${agent.size[1].toFixed(1)} m`]);
    if (isThere(track, step)) {
      rows.push(["position", `${track.x[step].toFixed(1)}, ${track.y[step].toFixed(1)} m`]);
      rows.push(["heading", number(((track.heading[step] * 180) / Math.PI % 360 + 360) % 360, 0, "°")]);
      rows.push(["speed", number(speed(scene, track, step), 1, "m/s")]);
      if (isThere(logged, step)) rows.push(["from the log", number(Math.hypot(track.x[step] - logged.x[step], track.y[step] - logged.y[step]), 2, "m")]);
      const says = [shows.controlled.has(shown.agent) ? "driven" : "replayed"];
      if (within(shows.rollout.collided?.[shown.agent], step)) says.push("collides");
      if (within(shows.rollout.offroad?.[shown.agent], step)) says.push("off the road");
      rows.push(["state", says.join(", ")]);
    } else rows.push(["state", "absent"]);
    const card = document.createElement("div"), heading = document.createElement("h3"), list = document.createElement("dl");
    card.className = "card";
    heading.textContent = `${agent.sdc ? "sdc, " : ""}${agent.type} ${agent.id} — ${shows.title}`;
    for (const [name, value] of rows) {
      const term = document.createElement("dt"), told = document.createElement("dd");
      term.textContent = name; told.textContent = value; list.append(term, told);
    }
    card.append(heading, list);
    const choices = choicesAt(scene, shows.rollout, shown.agent, step);
    if (choices) card.append(bars(choices));
    return card;
  }

  function bars(choices) {
    const box = document.createElement("div");
    box.className = "bars";
    for (const { label, probability } of choices) {
      const name = document.createElement("span"), bar = document.createElement("i"), share = document.createElement("span");
      name.textContent = `#${label}`; bar.style.width = `${100 * probability}%`; share.textContent = `${(100 * probability).toFixed(1)} %`;
      box.append(name, bar, share);
    }
    return box;
  }

  function setStep(step) {
    const { scene } = shown;
    shown.step = Math.min(scene.steps - 1, Math.max(0, step));
    find("step").value = shown.step;
    find("time").textContent = `${((shown.step - scene.current) * scene.seconds).toFixed(1)} s`;
    draw();
  }

  let last = 0, due = 0;
  function tick(now) {
    if (!shown.playing) return;
    due += ((now - last) / 1000 / shown.scene.seconds) * Number(find("speed").value);
    last = now;
    const steps = Math.floor(due);
    due -= steps;
    if (steps) setStep(shown.step + steps);
    if (shown.step >= shown.scene.steps - 1) play(false);
    else requestAnimationFrame(tick);
  }

  function play(on) {
    if (!shown.scene) return;
    shown.playing = on;
    find("play").classList.toggle("playing", on);
    find("play").setAttribute("aria-label", on ? "Pause" : "Play");
    if (!on) return;
    if (shown.step >= shown.scene.steps - 1) setStep(shown.scene.current);
    last = performance.now(); due = 0;
    requestAnimationFrame(tick);
  }

  function fillLegend() {
    const symbol = (text, paint) => {
      const item = document.createElement("li"), canvas = document.createElement("canvas");
      canvas.width = 66; canvas.height = 48;
      const context = canvas.getContext("2d");
      context.setTransform(6, 0, 0, -6, 33, 24);
      paint(context, 0.5);
      item.append(canvas, text);
      find("legend").append(item);
    };
    const agent = (type, size, sdc = false) => ({ type, size, sdc });
    const one = (made, flags) => (context, pixel) => drawAgent(context, made, 0, 0, 0, pixel, { controlled: true, ...flags });
    symbol("sdc", one(agent("vehicle", [8, 4], true)));
    symbol("vehicle", one(agent("vehicle", [8, 4])));
    symbol("cyclist", one(agent("cyclist", [6, 3])));
    symbol("pedestrian", one(agent("pedestrian", [3.5, 3.5])));
    symbol("follows the log", one(agent("vehicle", [8, 4]), { controlled: false }));
    symbol("in the log", (context, pixel) => drawGhost(context, agent("vehicle", [8, 4]), 0, 0, 0, pixel));
    symbol("collision", one(agent("vehicle", [4, 2]), { collided: true }));
    symbol("off the road", one(agent("vehicle", [6, 3]), { offroad: true }));
    for (const [state, text] of [[4, "stop"], [5, "caution"], [6, "go"]]) symbol(text, (context, pixel) => drawLight(context, 0, 0, state, pixel));
  }

  find("scene").addEventListener("change", () => open(Number(find("scene").value)));
  for (const side of ["left", "right"]) find(side).addEventListener("change", arrange);
  find("play").addEventListener("click", () => play(!shown.playing));
  find("back").addEventListener("click", () => { play(false); setStep(shown.step - 1); });
  find("forward").addEventListener("click", () => { play(false); setStep(shown.step + 1); });
  find("step").addEventListener("input", () => { play(false); setStep(Number(find("step").value)); });
  for (const id of ["ghosts", "follow"]) find(id).addEventListener("change", draw);
  find("fit").addEventListener("click", () => { find("follow").checked = false; fit(); });
  table.addEventListener("click", (event) => {
    const row = event.target.closest("button.link")?.closest("tr");
    if (!row) return;
    open(Number(row.dataset.scene), row.dataset.policy);
    find("player").scrollIntoView({ behavior: "smooth" });
  });
  document.addEventListener("keydown", (event) => {
    if (event.target.closest("select, input, button, a") || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.key === " ") { event.preventDefault(); play(!shown.playing); }
    if (event.key === "ArrowLeft") { play(false); setStep(shown.step - 1); }
    if (event.key === "ArrowRight") { play(false); setStep(shown.step + 1); }
  });
  fillLegend();
  open(0);
}
