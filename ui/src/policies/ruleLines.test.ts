import { expect, test } from "vitest";
import { ruleLines } from "./ruleLines";

const YAML = `kind: CiliumNetworkPolicy
spec:
  endpointSelector:
    matchLabels:
      app: db
  ingress:
  - fromEndpoints:
    - matchLabels:
        app: web
  - fromEntities:
    - host
    toPorts:
    - ports:
      - port: "80"
      - port: "81"
  egress:
    - toEntities: [world]
`;

const text = (path: string) => {
  const found = ruleLines(YAML, path);
  return (
    found &&
    YAML.split("\n")
      .slice(found.first, found.last + 1)
      .join("\n")
  );
};

test("a rule is found by its place, whether lists are indented or not", () => {
  expect(text("spec.ingress[0]")).toBe("  - fromEndpoints:\n    - matchLabels:\n        app: web");
  expect(text("spec.egress[0]")).toBe("    - toEntities: [world]");
});

test("so is what is inside of one", () => {
  expect(text("spec.ingress[1].toPorts[0].ports[1]")).toBe('      - port: "81"');
  expect(text("spec.ingress[1].fromEntities")).toBe("  - fromEntities:\n    - host");
});

test("a path that leads nowhere finds nothing", () => {
  expect(text("spec.ingress[2]")).toBeNull();
  expect(text("specs[0].ingress[0]")).toBeNull();
  expect(text("")).toBeNull();
});
