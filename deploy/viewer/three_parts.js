// The parts of three.js that geomagic_dagster/viewer/static/room.js uses; esbuild leaves out the rest.
export {
  AmbientLight,
  Box3,
  BoxGeometry,
  DirectionalLight,
  EdgesGeometry,
  Group,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  MeshLambertMaterial,
  PerspectiveCamera,
  PlaneGeometry,
  Raycaster,
  Scene,
  Vector2,
  Vector3,
  WebGLRenderer,
} from "three";
export { OrbitControls } from "three/addons/controls/OrbitControls.js";
export { LineMaterial } from "three/addons/lines/LineMaterial.js";
export { LineSegments2 } from "three/addons/lines/LineSegments2.js";
export { LineSegmentsGeometry } from "three/addons/lines/LineSegmentsGeometry.js";
export { GLTFLoader } from "three/addons/loaders/GLTFLoader.js";
