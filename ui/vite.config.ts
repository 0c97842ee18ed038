import react from "@vitejs/plugin-react";
import { defineConfig } from "vitest/config";
import { mockApi } from "./mock/plugin.ts";

/** Where `npm run dev` finds a server: `axo ui --sandbox demo`. */
const server = "http://127.0.0.1:12000";

export default defineConfig(({ mode }) => ({
  // Below whatever prefix: every address in the page is relative to it.
  base: "./",
  plugins: [react(), ...(mode === "mock" ? [mockApi()] : [])],
  build: {
    outDir: "../src/axoneme/ui/static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0,
    license: { fileName: "assets/licenses.md" },
  },
  server: mode === "mock" ? {} : { proxy: { "/api": server } },
  test: { include: ["src/**/*.test.ts"] },
}));
