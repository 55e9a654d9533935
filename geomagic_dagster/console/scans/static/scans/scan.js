// The room as a doll's house: what is seen from behind (the ceiling from above, a wall from outside) is left out.
const viewer = document.getElementById("room");
viewer.addEventListener("load", async () => {
  for (const material of viewer.model.materials) {
    await material.ensureLoaded();
    material.setDoubleSided(false);
  }
});
