"""Holds deploy/kubernetes against the schemas of Kubernetes (kubernetes-validate), and against itself.

    make test-deploy        (part of make test)
"""

import sys
from pathlib import Path

import kubernetes_validate
import yaml

FOLDER = Path(__file__).resolve().parent / "kubernetes"
# The oldest that is looked at, and the newest that the package knows. `preStop.sleep` is on by default since 1.30.
VERSIONS = ("1.31", kubernetes_validate.latest_version())


def documents(path):
    return [document for document in yaml.safe_load_all(path.read_text(encoding="utf-8")) if document]


def faults_of(document):
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            yield f"Kubernetes {version}: {'/'.join(map(str, error.path))}: {error.message}"


def check(folder):
    """Sentences on what is wrong, and how many documents were looked at."""
    faults, n_documents, documents_of_base = [], 0, {}
    for path in sorted(folder.rglob("*.yaml")):
        name = path.relative_to(folder)
        if path.name == "kustomization.yaml":
            (kustomization,) = documents(path)
            named = kustomization.get("resources", []) + [patch["path"] for patch in kustomization.get("patches", [])]
            named += [file for made in kustomization.get("configMapGenerator", []) for file in made["files"]]
            faults += [f"{name}: there is no {file}" for file in named if not (path.parent / file).exists()]
            left_out = {p.name for p in path.parent.iterdir()} - {path.name} - set(named)
            faults += [f"{name}: {file} is in no list" for file in sorted(left_out)]
            continue
        for document in documents(path):
            n_documents += 1
            if path.parent.name == "base":  # the others are patches: not whole
                documents_of_base[document["kind"]] = document
                faults += [f"{name}: {fault}" for fault in faults_of(document)]
    faults += agreement(documents_of_base)
    return faults, n_documents


def agreement(by_kind):
    """What no schema knows: the selectors find the pods, and no container may do more than it must."""
    deployment = by_kind["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"].items()
    selectors = {
        "Deployment": deployment["selector"]["matchLabels"],
        "Service": by_kind["Service"]["spec"]["selector"],
        "PodDisruptionBudget": by_kind["PodDisruptionBudget"]["spec"]["selector"]["matchLabels"],
    }
    for kind, selector in selectors.items():
        if not selector.items() <= labels:
            yield f"{kind}: its selector finds no pod"
    pod = deployment["template"]["spec"]
    volumes = {volume["name"] for volume in pod["volumes"]}
    for container in pod["initContainers"] + pod["containers"]:
        may = container["securityContext"]
        if may["allowPrivilegeEscalation"] or not may["readOnlyRootFilesystem"] or may["capabilities"] != {"drop": ["ALL"]}:
            yield f"container {container['name']}: may do more than it must"
        if not {mount["name"] for mount in container["volumeMounts"]} <= volumes:
            yield f"container {container['name']}: mounts what is no volume"
    if not pod["securityContext"]["runAsNonRoot"]:
        yield "the pod runs as root"


def main():
    faults, n_documents = check(FOLDER)
    # A check that finds nothing wrong anywhere would be none.
    broken = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"ports": [{"port": "http", "prot": 1}]}}
    if len(list(faults_of(broken))) != len(VERSIONS):
        faults.append("the schemas take a service with a port that is no number")
    for fault in faults:
        print(fault, file=sys.stderr)
    print(f"deploy/kubernetes: {n_documents} documents, {len(faults)} faults, Kubernetes {' and '.join(VERSIONS)}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
