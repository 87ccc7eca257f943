// Pictures of a scene, in metres: x to the right, y up.

function pathOf(lines, close) {
  const path = new Path2D();
  for (const line of lines) {
    path.moveTo(line[0], line[1]);
    for (let i = 2; i < line.length; i += 2) path.lineTo(line[i], line[i + 1]);
    if (close) path.closePath();
  }
  return path;
}

function mapPaths(scene) {
  const paths = {};
  const closed = new Set(["crosswalk", "speed_bump", "driveway"]);
  for (const [kind, lines] of Object.entries(scene.map)) {
    if (kind !== "stop_sign") paths[kind] = pathOf(lines, closed.has(kind));
  }
  return paths;
}

function drawMap(context, scene, paths, pixel) {
  const strokes = (kinds, color, width, dash = []) => {
    context.strokeStyle = color; context.lineWidth = Math.max(width, pixel); context.setLineDash(dash);
    for (const kind of kinds) if (paths[kind]) context.stroke(paths[kind]);
    context.setLineDash([]);
  };
  context.lineCap = "butt"; context.lineJoin = "round";
  if (paths.driveway) { context.fillStyle = colors.driveway; context.fill(paths.driveway); }
  const lanes = ["lane_undefined", "lane_freeway", "lane_surface_street"];
  strokes(lanes, colors.asphalt, 3.9);
  strokes(["lane_bike_lane"], colors.bike_lane, 1.6);
  strokes(lanes, colors.lane_center, 0.12, [1, 2]);
  if (paths.crosswalk) { context.fillStyle = colors.crosswalk; context.fill(paths.crosswalk); }
  const lines = Object.keys(paths).filter((kind) => kind.startsWith("road_line"));
  for (const kind of lines) {
    const color = kind.includes("yellow") ? colors.yellow_line : colors.white_line;
    const dash = kind.includes("broken") ? [3, 5] : [];
    if (kind.includes("double")) { strokes([kind], color, 0.45, dash); strokes([kind], colors.asphalt, 0.15); }
    else strokes([kind], color, 0.15, dash);
  }
  strokes(["speed_bump"], colors.speed_bump, 0.4);
  strokes(["road_edge_unknown", "road_edge_boundary", "road_edge_median"], colors.road_edge, 0.25);
  for (const [x, y] of scene.map.stop_sign ?? []) {
    const radius = Math.max(0.9, 5 * pixel);
    context.beginPath();
    for (let i = 0; i < 8; i++) {
      const angle = Math.PI / 8 + (i * Math.PI) / 4;
      context.lineTo(x + radius * Math.cos(angle), y + radius * Math.sin(angle));
    }
    context.closePath();
    context.fillStyle = colors.stop_sign; context.fill();
    context.strokeStyle = "#fff"; context.lineWidth = radius * 0.2; context.stroke();
  }
}

// By state: red is a square, amber a triangle, green a disc.
function drawLight(context, x, y, state, pixel) {
  const radius = Math.max(0.8, 5 * pixel), name = colors.light_names[state] ?? "";
  context.beginPath();
  if (name.includes("stop")) context.rect(x - radius, y - radius, 2 * radius, 2 * radius);
  else if (name.includes("caution")) {
    context.moveTo(x, y + 1.2 * radius); context.lineTo(x + 1.2 * radius, y - radius);
    context.lineTo(x - 1.2 * radius, y - radius); context.closePath();
  } else context.arc(x, y, radius, 0, 2 * Math.PI);
  context.fillStyle = colors.lights[state] ?? "#999"; context.fill();
  context.strokeStyle = colors.ink; context.lineWidth = Math.max(0.15, pixel); context.stroke();
}

function boxPath(length, width) {
  const path = new Path2D();
  path.rect(-length / 2, -width / 2, length, width);
  return path;
}

function placed(context, x, y, heading, draw) {
  context.save(); context.translate(x, y); context.rotate(heading); draw(); context.restore();
}

function drawGhost(context, agent, x, y, heading, pixel) {
  placed(context, x, y, heading, () => {
    context.setLineDash([4 * pixel, 3 * pixel]);
    context.strokeStyle = colors.log_ghost; context.lineWidth = 1.2 * pixel;
    context.stroke(boxPath(agent.size[0], agent.size[1]));
    context.setLineDash([]);
  });
}

function drawAgent(context, agent, x, y, heading, pixel, flags) {
  const length = Math.max(agent.size[0], 4 * pixel), width = Math.max(agent.size[1], 3 * pixel);
  const color = agent.sdc ? colors.sdc : colors.agents[agent.type] ?? colors.agents.unset;
  const ring = Math.hypot(length, width) / 2 + 3 * pixel;
  placed(context, x, y, heading, () => {
    const box = boxPath(length, width);
    if (flags.offroad) { context.strokeStyle = colors.offroad; context.lineWidth = 5 * pixel; context.stroke(box); }
    context.globalAlpha = flags.controlled ? 1 : 0.45;
    context.fillStyle = color; context.fill(box);
    context.globalAlpha = 1;
    context.strokeStyle = agent.sdc ? colors.ink : "#fff"; context.lineWidth = pixel; context.stroke(box);
    context.beginPath();
    context.moveTo(length / 2, 0); context.lineTo(length * 0.22, width * 0.34); context.lineTo(length * 0.22, -width * 0.34);
    context.closePath(); context.fillStyle = "#fff"; context.fill();
  });
  const circle = (radius, stroke, line, dash = []) => {
    context.beginPath(); context.arc(x, y, radius, 0, 2 * Math.PI); context.setLineDash(dash);
    context.strokeStyle = stroke; context.lineWidth = line; context.stroke(); context.setLineDash([]);
  };
  if (flags.collided) circle(ring, colors.collision, 3 * pixel);
  if (flags.chosen) circle(ring + 4 * pixel, colors.ink, 1.5 * pixel, [4 * pixel, 3 * pixel]);
}

function drawTrail(context, track, from, to, color, pixel) {
  context.beginPath();
  for (let i = from; i <= to; i++) if (isThere(track, i)) context.lineTo(track.x[i], track.y[i]);
  context.strokeStyle = color; context.lineWidth = 1.5 * pixel; context.globalAlpha = 0.55; context.stroke();
  context.globalAlpha = 1;
}

function drawChoices(context, choices, pixel) {
  for (const choice of choices.slice().reverse()) {
    context.globalAlpha = 0.25 + 0.75 * choice.probability;
    context.strokeStyle = colors.ink; context.lineWidth = (1 + 4 * choice.probability) * pixel;
    context.beginPath(); context.moveTo(...choice.from); context.lineTo(...choice.to); context.stroke();
    context.beginPath(); context.arc(...choice.to, (2 + 3 * choice.probability) * pixel, 0, 2 * Math.PI);
    context.fillStyle = colors.ink; context.fill();
  }
  context.globalAlpha = 1;
}

function drawScaleBar(context, width, height, scale) {
  const wanted = 90 / scale, power = 10 ** Math.floor(Math.log10(wanted));
  const metres = [5, 2, 1].map((n) => n * power).find((n) => n <= wanted) ?? power;
  const right = width - 14, left = right - metres * scale, y = height - 16;
  context.strokeStyle = colors.ink; context.lineWidth = 1.5;
  context.beginPath();
  context.moveTo(left, y - 4); context.lineTo(left, y); context.lineTo(right, y); context.lineTo(right, y - 4);
  context.stroke();
  context.fillStyle = colors.ink; context.font = "12px system-ui, sans-serif"; context.textAlign = "center";
  context.fillText(`${metres} m`, (left + right) / 2, y - 6);
}
