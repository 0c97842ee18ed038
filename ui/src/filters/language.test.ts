import { describe, expect, test } from "vitest";
import type { Filter } from "../api/types";
import { advance, fieldsFor, valuesFor } from "./completion";
import { command, fields, fromQuery, Misunderstood, parseCommand, type Term, withTerms } from "./language";

const FILTERS: Filter[] = [
  { name: "verdict", sided: false, help: "", values: ["FORWARDED", "DROPPED"] },
  { name: "pod", sided: true, help: "" },
  { name: "namespace", sided: true, help: "" },
  { name: "port", sided: true, help: "" },
  { name: "http_path", sided: false, help: "" },
];

const term = (field: string, value: string, not = false): Term => ({ field, value, not });

describe("a command line", () => {
  test("reads options as axo observe does", () => {
    const parsed = parseCommand(
      "axo observe --from-pod shop/web -v DROPPED --not --port 53 --since 5m -f",
      FILTERS,
    );
    expect(parsed).toEqual({
      terms: [term("from_pod", "shop/web"), term("verdict", "DROPPED"), term("port", "53", true)],
      since: "5m",
      until: "",
    });
  });

  test("takes names without dashes, and values behind an equals sign", () => {
    expect(parseCommand("not pod=shop/web to-port 80", FILTERS).terms).toEqual([
      term("pod", "shop/web", true),
      term("to_port", "80"),
    ]);
  });

  test("unquotes as a shell does", () => {
    expect(parseCommand(`--http-path '^/a b' --pod "x\\"y"`, FILTERS).terms).toEqual([
      term("http_path", "^/a b"),
      term("pod", 'x"y'),
    ]);
  });

  test("says what is no filter, and what misses a value", () => {
    expect(() => parseCommand("--colour red", FILTERS)).toThrow(Misunderstood);
    expect(() => parseCommand("--pod", FILTERS)).toThrow("a value is missing");
    expect(() => parseCommand("--not", FILTERS)).toThrow("has to follow");
  });

  test("is read back as it was written", () => {
    const terms = [
      term("http_path", "^/it's (here|there)$", true),
      term("from_pod", "shop/web"),
      term("port", "53"),
    ];
    expect(parseCommand(command(terms), FILTERS).terms).toEqual(terms);
  });
});

describe("an address", () => {
  test("keeps terms, their order, and what is no filter", () => {
    const terms = [term("verdict", "DROPPED"), term("verdict", "AUDIT"), term("port", "53", true)];
    const query = withTerms(new URLSearchParams("verdict=FORWARDED&flow=7"), FILTERS, terms);
    expect(query.get("flow")).toBe("7");
    expect(fromQuery(query, FILTERS)).toEqual(terms);
  });
});

describe("completion", () => {
  const all = fields(FILTERS);

  test("offers names that begin so first, then those of which a part does", () => {
    expect(fieldsFor("po", all).map((each) => each.name)).toEqual([
      "pod",
      "port",
      "from_pod",
      "to_pod",
      "from_port",
      "to_port",
    ]);
  });

  test("takes a field's name once it has ended", () => {
    const { field, text, not } = advance({ not: false, field: null, text: "not --from-pod sh" }, all);
    expect([field?.name, text, not]).toEqual(["from_pod", "sh", true]);
    expect(advance({ not: false, field: null, text: "from-po" }, all).field).toBeNull();
  });

  test("ranks values that begin with the text before those that hold it", () => {
    expect(valuesFor("web", ["shop/web", "web-1", "db"])).toEqual(["web-1", "shop/web"]);
  });
});
