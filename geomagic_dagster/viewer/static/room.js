// The page's buttons, and the 3D room: what was scanned, walls and furniture as the package says, a tape measure.
// Belongs here: drawing and picking. Does not belong here: what the package means (page.py), anything from a network.
// Plain script over the global THREE (three.js beside it); lengths are metres, y is up, as in room.glb.
(() => {
  "use strict";
  const decoded = (base64) => Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));

  for (const button of document.querySelectorAll("[data-save]")) {
    button.parentElement.hidden = false;
    button.addEventListener("click", () => {
      const held = document.getElementById(button.dataset.save);
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([decoded(held.src?.split(",")[1] || held.textContent)]));
      link.download = button.dataset.file;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
  document.getElementById("larger")?.addEventListener("click", ({ target }) => {
    const isLarger = target.closest("section").classList.toggle("larger");
    target.setAttribute("aria-pressed", String(isLarger));
  });

  const stage = document.getElementById("stage");
  if (!stage) return; // a package without room.glb and room.json: the page says so in words
  const picture = stage.querySelector("img");
  const said = document.getElementById("said");
  const tools = document.getElementById("tools");
  const styles = getComputedStyle(document.documentElement);
  const read = (id) => document.getElementById(id)?.textContent;
  const spoken = (name) => name.replace(/_(?=\d+$)/, " ");
  const only = (choice) => Object.keys(choice)[0]; // {"table": {}}: how room.json writes one of several
  const metres = (length) => `${length.toFixed(2)} m`;
  const sigma = (length) => `± ${Math.max(0.1, 100 * length).toFixed(1)} cm`;

  const scene = new THREE.Scene();
  const camera = new THREE.PerspectiveCamera(35, 1, 0.05, 500);
  const lamp = new THREE.DirectionalLight(0xffffff, 0.45 * Math.PI); // what faces the viewer has its captured colour
  scene.add(new THREE.AmbientLight(0xffffff, 0.55 * Math.PI), camera);
  camera.add(lamp);

  const layers = { surface: new THREE.Group(), walls: new THREE.Group(), furniture: new THREE.Group() };
  scene.add(...Object.values(layers));
  const labels = []; // { element, at, layer }
  const coloured = []; // [material, CSS variable]: follow the colour scheme
  let renderer, controls, isDue = false;
  let facing = 0; // where the longest wall looks to, about y from z

  // --- drawing ------------------------------------------------------------------------------------

  const draw = () => {
    if (isDue) return;
    isDue = true;
    requestAnimationFrame(() => {
      isDue = false;
      renderer.render(scene, camera);
      const { clientWidth: width, clientHeight: height } = stage;
      const taken = [];
      for (const { element, at, layer } of labels) {
        const seen = at.clone().project(camera);
        const x = ((seen.x + 1) / 2) * width;
        const y = ((1 - seen.y) / 2) * height;
        element.hidden = !layer.visible || Math.abs(seen.z) > 1;
        if (element.hidden) continue;
        element.style.transform = `translate(${x.toFixed(1)}px, ${y.toFixed(1)}px) translate(-50%, -50%)`;
        if (element.className === "dot") continue;
        // Labels that would cover one another: the first stays, the other is see-through for as long.
        const box = { x, y, w: element.offsetWidth, h: element.offsetHeight };
        const isCovered = taken.some((t) => Math.abs(t.x - x) * 2 < t.w + box.w && Math.abs(t.y - y) * 2 < t.h + box.h);
        element.style.opacity = isCovered && element.getAttribute("aria-pressed") !== "true" ? 0.0 : 1;
        element.style.pointerEvents = isCovered ? "none" : "";
        if (!isCovered) taken.push(box);
      }
    });
  };

  const resize = () => {
    const { clientWidth: width, clientHeight: height } = stage;
    if (!width || !height) return;
    renderer.setPixelRatio(Math.min(devicePixelRatio, 2));
    renderer.setSize(width, height, false);
    camera.aspect = width / height;
    camera.updateProjectionMatrix();
    draw();
  };

  const material = (Kind, variable, options) => {
    const made = new Kind(options);
    coloured.push([made, variable]);
    return made;
  };

  const paint = () => {
    for (const [made, variable] of coloured) made.color.set(styles.getPropertyValue(variable).trim());
    draw();
  };

  /** Line segments, `width` pixels wide whatever the distance; points are pairs of Vector3. */
  const lines = (points, variable, options) => {
    const geometry = new THREE.LineSegmentsGeometry().setPositions(points.flatMap((p) => p.toArray()));
    const made = new THREE.LineSegments2(geometry, material(THREE.LineMaterial, variable, { linewidth: 2, ...options }));
    made.computeLineDistances();
    made.raycast = () => {}; // nobody means to hit a line
    return made;
  };

  const label = (element, text, at, layer) => {
    element.classList.add("label");
    element.textContent = text;
    document.getElementById("labels").append(element);
    labels.push({ element, at, layer });
    return element;
  };

  // --- what the package holds ---------------------------------------------------------------------

  const addSurface = async (base64) => {
    const gltf = await new THREE.GLTFLoader().parseAsync(decoded(base64).buffer, "");
    const room = gltf.scenes.map((each) => each.getObjectByName("room")).find(Boolean) ?? gltf.scene;
    room.traverse((each) => {
      if (!each.isMesh) return;
      // One-sided: a wall is seen from inside the room only, so the near ones are no obstacle.
      each.material = new THREE.MeshLambertMaterial({ vertexColors: "color" in each.geometry.attributes });
    });
    layers.surface.add(room);
  };

  /** One element of room.json, a surface or a box: faint faces, clear edges, and a button that tells its size. */
  const add = (entry, layer, variable, { text, told, from = 0.5, faint = 0.1, ...edges }) => {
    const [width, height, depth] = entry.dimensions;
    const placed = new THREE.Matrix4().fromArray(entry.transform);
    const shape = depth ? new THREE.BoxGeometry(width, height, depth) : new THREE.PlaneGeometry(width, height);
    const look = { transparent: true, opacity: faint, depthWrite: false };
    const faces = new THREE.Mesh(shape, material(THREE.MeshBasicMaterial, variable, look));
    faces.applyMatrix4(placed);
    const ends = new THREE.EdgesGeometry(shape).attributes.position;
    const points = Array.from({ length: ends.count }, (_, i) => new THREE.Vector3().fromBufferAttribute(ends, i));
    layer.add(faces, lines(points.map((point) => point.applyMatrix4(placed)), variable, edges));

    const at = new THREE.Vector3(0, height * from, 0).applyMatrix4(placed);
    const button = label(document.createElement("button"), text, at, layer);
    button.type = "button";
    button.style.color = `var(${variable})`;
    button.setAttribute("aria-pressed", "false");
    faces.userData.select = () => select({ button, faces, faint, told: `${spoken(entry.name)}: ${told}` });
    button.addEventListener("click", faces.userData.select);
  };

  const addRoom = (room) => {
    const longest = room.walls.reduce((a, b) => (b.dimensions[0] > (a?.dimensions[0] ?? 0) ? b : a), undefined);
    if (longest) facing = Math.atan2(longest.transform[8], longest.transform[10]); // its z axis, into the room
    for (const wall of room.walls) {
      const [width, height] = wall.dimensions;
      const length = `${wall.isGuessed ? "about " : ""}${metres(width)}`;
      const doubt = wall.isGuessed ? "nobody saw this wall, it is guessed" : `confidence ${only(wall.confidence)}`;
      add(wall, layers.walls, "--wall", {
        text: length,
        faint: 0.04,
        told: `${length} ${sigma(wall.sigma.length)} long, ${metres(height)} high; ${doubt}`,
        ...(wall.isGuessed && { dashed: true, dashSize: 0.12, gapSize: 0.1 }),
      });
    }
    for (const opening of [...room.doors, ...room.windows, ...room.openings]) {
      const [width, height] = opening.dimensions;
      add(opening, layers.walls, "--opening", {
        text: spoken(opening.name),
        told: `${metres(width)} wide, ${metres(height)} high, ${metres(opening.sill)} above the floor, each edge ` +
          `${sigma(opening.sigma.edge)}; confidence ${only(opening.confidence)}`,
        from: 0,
        linewidth: 3,
      });
    }
    for (const box of [...room.objects, ...room.otherObjects]) {
      const [width, height, depth] = box.dimensions;
      add(box, layers.furniture, "--furniture", {
        text: spoken(box.name),
        told: `${metres(width)} wide, ${metres(depth)} deep, ${metres(height)} high, ` +
          `${sigma(Math.max(...box.sigma.dimensions))}; confidence ${only(box.confidence)}`,
      });
    }
  };

  let selected;
  const select = (piece) => {
    const { button, faces, faint } = selected ?? {};
    button?.setAttribute("aria-pressed", "false");
    if (faces) faces.material.opacity = faint;
    selected = button === piece?.button ? undefined : piece;
    selected?.button.setAttribute("aria-pressed", "true");
    if (selected) selected.faces.material.opacity = 0.45;
    said.textContent = selected?.told ?? "";
    draw();
  };

  // --- picking ------------------------------------------------------------------------------------

  const hit = (event, groups) => {
    const frame = stage.getBoundingClientRect();
    const at = new THREE.Vector2(
      ((event.clientX - frame.left) / frame.width) * 2 - 1,
      1 - ((event.clientY - frame.top) / frame.height) * 2,
    );
    const ray = new THREE.Raycaster();
    ray.setFromCamera(at, camera);
    return ray.intersectObjects(groups.filter((each) => each.visible))[0];
  };

  const tape = { isOn: false, ends: [], things: [], group: new THREE.Group() };
  scene.add(tape.group);
  const clearTape = () => {
    for (const element of tape.things) element.remove();
    labels.splice(0, labels.length, ...labels.filter(({ element }) => !tape.things.includes(element)));
    tape.group.clear();
    tape.ends = [];
    tape.things = [];
  };

  const measure = (point) => {
    if (tape.ends.length === 2) clearTape();
    tape.ends.push(point);
    const dot = document.createElement("span");
    dot.className = "dot";
    document.getElementById("labels").append(dot);
    labels.push({ element: dot, at: point, layer: tape.group });
    tape.things.push(dot);
    said.textContent = "First point set. Click the second one.";
    if (tape.ends.length === 2) {
      const [from, to] = tape.ends;
      tape.group.add(lines([from, to], "--tape", { linewidth: 3, depthTest: false }));
      const text = metres(from.distanceTo(to));
      const element = label(document.createElement("span"), text, from.clone().lerp(to, 0.5), tape.group);
      element.classList.add("tape");
      labels.unshift(labels.pop()); // before all others
      tape.things.push(element);
      said.textContent = `${text} between the two points (${metres(Math.abs(from.y - to.y))} of it in height)`;
      paint();
    }
    draw();
  };

  const click = (event) => {
    if (tape.isOn) {
      const found = hit(event, Object.values(layers));
      if (found) measure(found.point);
      else said.textContent = "There is nothing to measure here. Click on the room.";
    } else {
      // A box that the scanned surface does not hide; what was scanned of a thing may stand a little out of its box.
      const [box, front] = [hit(event, [layers.furniture]), hit(event, [layers.surface])];
      if (box && !(front?.distance < box.distance - 0.1)) box.object.userData.select();
      else select();
    }
  };

  // --- the camera and the buttons -----------------------------------------------------------------

  /** About 2000 points of the room, between which everything lies. */
  const outermost = () => {
    const points = [];
    for (const layer of Object.values(layers)) {
      layer.updateWorldMatrix(true, true);
      layer.traverse((each) => {
        const corners = each.geometry?.attributes.position;
        if (!each.isMesh || each.isLineSegments2 || !corners) return;
        for (let i = 0; i < corners.count; i += Math.max(1, corners.count >> 11)) {
          points.push(new THREE.Vector3().fromBufferAttribute(corners, i).applyMatrix4(each.matrixWorld));
        }
      });
    }
    return points;
  };

  /** Looks at the whole room, its longest wall behind: from a corner, or straight from above as a plan has it. */
  const look = (isFromAbove) => {
    const points = outermost();
    const middle = new THREE.Box3().setFromPoints(points).getCenter(new THREE.Vector3());
    const aside = isFromAbove ? (camera.aspect < 1 ? Math.PI / 2 : 0) : 0.5;
    const towards = new THREE.Vector3().setFromSphericalCoords(1, isFromAbove ? 1e-3 : 0.72, facing + aside);
    const right = new THREE.Vector3(0, 1, 0).cross(towards).normalize();
    const up = towards.clone().cross(right);
    const slope = Math.tan((camera.fov * Math.PI) / 360);
    let arm = 0;
    for (let i = 0; i < 4; i += 1) { // nearer things look larger, so the middle of the picture shifts with the distance
      const seen = points.map((point) => {
        const from = point.clone().sub(middle);
        return { x: from.dot(right), y: from.dot(up), z: from.dot(towards) };
      });
      arm = Math.max(...seen.map(({ x, y, z }) => z + Math.max(Math.abs(x) / camera.aspect, Math.abs(y)) / slope));
      for (const [axis, direction] of [["x", right], ["y", up]]) {
        const spread = seen.map((each) => each[axis] / (arm - each.z));
        middle.addScaledVector(direction, (arm * (Math.max(...spread) + Math.min(...spread))) / 2);
      }
    }
    controls.target.copy(middle);
    camera.position.copy(middle).addScaledVector(towards, 1.06 * arm);
    controls.update();
    draw();
  };

  const turn = (azimuth, elevation, zoom) => {
    const arm = camera.position.clone().sub(controls.target);
    const length = arm.length();
    const around = Math.atan2(arm.x, arm.z) + azimuth;
    const polar = Math.min(Math.max(Math.acos(arm.y / length) - elevation, 1e-3), controls.maxPolarAngle);
    arm.setFromSphericalCoords(length * zoom, polar, around);
    camera.position.copy(controls.target).add(arm);
    controls.update();
    draw();
  };

  const KEYS = {
    ArrowLeft: () => turn(-0.15, 0, 1),
    ArrowRight: () => turn(0.15, 0, 1),
    ArrowUp: () => turn(0, 0.1, 1),
    ArrowDown: () => turn(0, -0.1, 1),
    "+": () => turn(0, 0, 0.9),
    "=": () => turn(0, 0, 0.9),
    "-": () => turn(0, 0, 1.1),
    Escape: () => { clearTape(); select(); },
  };

  const toggle = (key, on) => {
    if (key === "measure") {
      select();
      tape.isOn = on;
      stage.classList.toggle("measuring", on);
      clearTape();
      said.textContent = on ? "Click two points of the room." : "";
    } else {
      layers[key].visible = on;
    }
    tools.querySelector(`[data-toggle="${key}"]`).setAttribute("aria-pressed", String(on));
    draw();
  };

  const listen = (canvas) => {
    let down;
    canvas.addEventListener("pointerdown", (event) => {
      down = event.isPrimary ? event : undefined;
      canvas.focus({ preventScroll: true });
    });
    canvas.addEventListener("pointerup", (event) => {
      if (down && Math.hypot(event.clientX - down.clientX, event.clientY - down.clientY) < 6) click(event);
      down = undefined;
    });
    // The wheel zooms once the room was clicked: until then it scrolls the page, as anywhere else.
    canvas.addEventListener("focus", () => { controls.enableZoom = true; });
    canvas.addEventListener("blur", () => { controls.enableZoom = false; });
    canvas.addEventListener("keydown", (event) => {
      const act = KEYS[event.key];
      if (!act || event.ctrlKey || event.metaKey || event.altKey) return;
      event.preventDefault();
      act();
    });
    canvas.addEventListener("webglcontextlost", () => fail("The browser gave up drawing the room; load the page again."));
    for (const button of tools.querySelectorAll("button")) {
      button.addEventListener("click", () => {
        if (button.dataset.toggle) toggle(button.dataset.toggle, button.getAttribute("aria-pressed") !== "true");
        else look(button.dataset.look === "above");
      });
    }
    controls.addEventListener("change", draw);
    new ResizeObserver(resize).observe(stage);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", paint);
  };

  const fail = (sentence) => {
    renderer?.domElement.remove();
    document.getElementById("labels").replaceChildren();
    tools.hidden = document.getElementById("hint").hidden = true;
    if (picture) picture.hidden = false;
    said.textContent = sentence;
    stage.dataset.state = "failed";
  };

  const start = async () => {
    try {
      renderer = new THREE.WebGLRenderer({ antialias: true, alpha: true });
    } catch {
      fail(`This browser has no WebGL to turn the room with${picture ? "; here is a picture of it" : ""}.`);
      return;
    }
    const canvas = renderer.domElement;
    canvas.tabIndex = 0;
    canvas.setAttribute("role", "img");
    canvas.setAttribute("aria-label", stage.dataset.label);
    canvas.setAttribute("aria-describedby", "hint");
    stage.prepend(canvas);
    controls = new THREE.OrbitControls(camera, canvas);
    controls.enableZoom = false;
    controls.maxPolarAngle = 0.5 * Math.PI;
    controls.zoomToCursor = true;
    try {
      const [glb, json] = [read("room-glb"), read("room-json")];
      if (glb) await addSurface(glb);
      if (json) addRoom(JSON.parse(json));
    } catch (error) {
      fail(`The 3D room could not be read (${error.message}).`);
      return;
    }
    for (const key of Object.keys(layers)) {
      const isThere = layers[key].children.length > 0;
      tools.querySelector(`[data-toggle="${key}"]`).hidden = !isThere;
      toggle(key, isThere && (key !== "furniture" || layers.surface.children.length === 0));
    }
    if (picture) picture.hidden = true;
    tools.hidden = document.getElementById("hint").hidden = false;
    listen(canvas);
    resize();
    look(false);
    paint();
    stage.dataset.state = "ready";
  };

  start();
})();
