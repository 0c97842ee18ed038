import { expect, test } from "vitest";
import { chosen, moved, window } from "./span";

const NOW = Date.parse("2026-01-31T12:00:00Z");
const at = (text: string) => Date.parse(`2026-01-31T${text}Z`);

test("an address without times means the present", () => {
  expect(chosen(new URLSearchParams("verdict=DROPPED"), NOW)).toBeNull();
});

test("half a span is completed", () => {
  expect(chosen(new URLSearchParams("since=2026-01-31T11:50:00Z"), NOW)).toEqual({
    since: at("11:50:00"),
    until: NOW,
  });
  expect(chosen(new URLSearchParams("until=2026-01-31T11:50:00Z"), NOW)).toEqual({
    since: at("11:49:00"),
    until: at("11:50:00"),
  });
});

test("a span that ends before it begins is not taken by its word", () => {
  const span = chosen(new URLSearchParams("since=2026-01-31T11:50:00Z&until=2026-01-31T11:40:00Z"), NOW);
  expect(span).toEqual({ since: at("11:39:00"), until: at("11:40:00") });
});

test("the window holds what is chosen, also what is older than the scope", () => {
  const span = { since: at("09:00:00"), until: at("09:10:00") };
  const found = window("15m", span, NOW);
  expect(found.since).toBeLessThan(span.since);
  expect(found.until).toBeGreaterThan(span.until);
  expect(window("15m", null, NOW)).toEqual({ since: NOW - 900_000, until: NOW });
});

test("a span moves by its own width, and not beyond now", () => {
  const span = { since: at("11:40:00"), until: at("11:50:00") };
  expect(moved(span, -1, NOW)).toEqual({ since: at("11:30:00"), until: at("11:40:00") });
  expect(moved(span, 2, NOW)).toEqual({ since: at("11:50:00"), until: NOW });
});
