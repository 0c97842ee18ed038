"""Where desired and shared state comes from: SQLite, etcd, folders of manifests, Kubernetes."""
