import { Component, type ReactNode } from "react";
import { Button, Notice } from "../parts/parts";
import styles from "./App.module.css";

type Props = { children: ReactNode };
type State = { message: string };

/** A mistake in one view leaves the others: what went wrong is said in its place. */
export class Boundary extends Component<Props, State> {
  override state: State = { message: "" };

  static getDerivedStateFromError(error: unknown): State {
    return { message: error instanceof Error ? error.message : String(error) };
  }

  override render(): ReactNode {
    if (!this.state.message) return this.props.children;
    return (
      <div className={styles.alone}>
        <Notice tone="bad">
          <p>This view cannot be shown: {this.state.message}</p>
          <p className="muted">This is a mistake in the page. Other views go on.</p>
          <Button onClick={() => this.setState({ message: "" })}>Try again</Button>
        </Notice>
      </div>
    );
  }
}
