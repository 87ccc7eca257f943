// Scenes: from text to numbers that can be drawn.

async function readScene(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return prepareScene(await new Response(stream).json());
}

function prepareScene(scene) {
  const { metres, radians, steps } = scene;
  scene.log = scene.log.map((runs) => track(runs, steps, metres, radians));
  for (const drive of Object.values(scene.drives)) {
    drive.controlled = new Set(drive.controlled);
    for (const rollout of drive.rollouts) {
      rollout.tracks = rollout.tracks.map((runs, agent) =>
        runs === null ? scene.log[agent] : track(runs, steps, metres, radians));
    }
  }
  for (const lines of Object.values(scene.map)) {
    lines.forEach((numbers, index) => { lines[index] = summed(numbers, 2).map((n) => n * metres); });
  }
  for (const light of scene.lights) light.at = light.at.map((n) => n * metres);
  return scene;
}

// An agent's x, y and heading at every step; NaN where it is not there.
function track(runs, steps, metres, radians) {
  const empty = () => new Float64Array(steps).fill(NaN);
  const told = { x: empty(), y: empty(), heading: empty() };
  for (const [start, x, y, heading] of runs) {
    told.x.set(summed(x, 1).map((n) => n * metres), start);
    told.y.set(summed(y, 1).map((n) => n * metres), start);
    told.heading.set(summed(heading, 1).map((n) => n * radians), start);
  }
  return told;
}

// Undoes differences between rows of so many numbers.
function summed(numbers, width) {
  const sums = numbers.slice();
  for (let i = width; i < sums.length; i++) sums[i] += sums[i - width];
  return sums;
}

function within(runs, step) {
  if (!runs) return false;
  for (let i = 0; i < runs.length; i += 2) if (step >= runs[i] && step <= runs[i + 1]) return true;
  return false;
}

function isThere(track, step) { return !Number.isNaN(track.x[step]); }

function speed(scene, track, step) {
  const before = step > 0 && isThere(track, step - 1) ? step - 1 : step;
  const after = before === step && step + 1 < scene.steps && isThere(track, step + 1) ? step + 1 : step;
  if (after === before) return NaN;
  return Math.hypot(track.x[after] - track.x[before], track.y[after] - track.y[before]) / scene.seconds;
}

// What the agent found likely at the last decision: label, probability and where it leads.
function choicesAt(scene, rollout, agent, step) {
  const choices = rollout.choices;
  if (!choices || !(agent in choices.label) || step < scene.current) return null;
  const { top } = choices;
  const decisions = choices.label[agent].length / top;
  const every = (scene.steps - 1 - scene.current) / decisions;
  const index = Math.min(decisions - 1, Math.floor((step - scene.current) / every));
  const from = scene.current + Math.round(index * every);
  const place = rollout.tracks[agent];
  if (!isThere(place, from)) return null;
  const cos = Math.cos(place.heading[from]), sin = Math.sin(place.heading[from]);
  return Array.from({ length: top }, (_, k) => {
    const at = index * top + k;
    const ahead = choices.offset[agent][2 * at] * scene.metres;
    const left = choices.offset[agent][2 * at + 1] * scene.metres;
    return {
      label: choices.label[agent][at],
      probability: choices.promille[agent][at] / 1000,
      from: [place.x[from], place.y[from]],
      to: [place.x[from] + cos * ahead - sin * left, place.y[from] + sin * ahead + cos * left],
    };
  });
}
