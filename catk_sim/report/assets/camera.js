// What of the ground is seen, alike in all views, and how fingers and wheels change it.

const camera = { x: 0, y: 0, metres: 100 };

function pixelsPerMetre(canvas) {
  return Math.min(canvas.clientWidth, canvas.clientHeight) / camera.metres;
}

function toGround(canvas, clientX, clientY) {
  const box = canvas.getBoundingClientRect(), scale = pixelsPerMetre(canvas);
  return [
    camera.x + (clientX - box.left - box.width / 2) / scale,
    camera.y - (clientY - box.top - box.height / 2) / scale,
  ];
}

function zoom(canvas, factor, clientX, clientY) {
  const [x, y] = toGround(canvas, clientX, clientY);
  const metres = Math.min(2000, Math.max(8, camera.metres * factor));
  const share = metres / camera.metres;
  camera.x = x + (camera.x - x) * share;
  camera.y = y + (camera.y - y) * share;
  camera.metres = metres;
}

// Calls `changed` when the camera moved, `clicked(x, y)` with a place on the ground (m).
function listen(canvas, changed, clicked) {
  const fingers = new Map();
  let moved = 0;
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoom(canvas, Math.exp(event.deltaY * (event.deltaMode ? 0.05 : 0.0015)), event.clientX, event.clientY);
    changed();
  }, { passive: false });
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    if (!fingers.size) moved = 0;
    fingers.set(event.pointerId, event);
  });
  canvas.addEventListener("pointermove", (event) => {
    const last = fingers.get(event.pointerId);
    if (!last) return;
    const scale = pixelsPerMetre(canvas);
    const dx = event.clientX - last.clientX, dy = event.clientY - last.clientY;
    moved += Math.abs(dx) + Math.abs(dy);
    if (fingers.size === 2) {
      const other = [...fingers.values()].find((one) => one.pointerId !== event.pointerId);
      const spread = (one) => Math.hypot(one.clientX - other.clientX, one.clientY - other.clientY);
      const middle = [(event.clientX + other.clientX) / 2, (event.clientY + other.clientY) / 2];
      zoom(canvas, spread(last) / Math.max(1, spread(event)), ...middle);
    }
    camera.x -= dx / scale / fingers.size;
    camera.y += dy / scale / fingers.size;
    fingers.set(event.pointerId, event);
    changed(dx || dy);
  });
  for (const kind of ["pointerup", "pointercancel"]) {
    canvas.addEventListener(kind, (event) => {
      const was = fingers.delete(event.pointerId);
      if (was && kind === "pointerup" && moved < 6) clicked(...toGround(canvas, event.clientX, event.clientY));
    });
  }
}
