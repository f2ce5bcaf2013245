import { goLive } from "./live.js";

goLive();
