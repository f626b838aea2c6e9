//! Kinds made by definitions: validation, defaults, pruning, rules, status.

use super::{Cluster, eventually};

const DEFINITION: &str = r#"
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: widgets.GROUP}
spec:
  group: GROUP
  scope: Namespaced
  names: {plural: widgets, kind: Widget, categories: [CATEGORY]}
  versions:
  - name: v1
    served: true
    storage: true
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas}
    selectableFields: [{jsonPath: .spec.color}]
    additionalPrinterColumns:
    - {name: Color, type: string, jsonPath: .spec.color}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type=="Ready")].status'}
    - {name: Size, type: integer, jsonPath: .spec.size, priority: 1}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [size]
            x-kubernetes-validations:
            - {rule: "self.size <= 10 || self.color == 'red'", message: big ones are red}
            - {rule: self.size >= oldSelf.size, message: widgets only grow}
            properties:
              size: {type: integer, minimum: 1, maximum: 100}
              color: {type: string, enum: [red, green], default: green}
              replicas: {type: integer, default: 1}
              port: {x-kubernetes-int-or-string: true}
              label: {type: string, pattern: '^[a-z]+$', maxLength: 5}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              tags: {type: array, x-kubernetes-list-type: set, items: {type: string}}
              parts:
                type: array
                x-kubernetes-list-type: map
                x-kubernetes-list-map-keys: [name]
                items:
                  type: object
                  required: [name]
                  properties: {name: {type: string}, count: {type: integer, default: 7}}
          status:
            type: object
            properties:
              replicas: {type: integer}
              conditions:
                type: array
                items: {type: object, properties: {type: {type: string}, status: {type: string}}}
"#;

impl Cluster {
    fn widget(&self, spec: &str) -> String {
        let group = self.group();
        format!("apiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: w}}\nspec: {spec}\n")
    }

    fn definition(&self, group: &str) -> String {
        DEFINITION.replace("GROUP", group).replace("CATEGORY", &self.category())
    }

    /// What the kind is listed by, with all others of the category: only it.
    fn category(&self) -> String {
        format!("all-{}", self.namespace)
    }

    /// A line for kubectl, in which `wd` stands for the kind.
    fn wd(&self, line: &str) -> String {
        line.replace("wd", &format!("widgets.{}", self.group()))
    }
}

/// Defines the case's own kind `Widget` and waits until it is served.
async fn define(c: &Cluster) {
    let group = c.group();
    c.apply(&c.definition(&group)).await;
    let waited = c.ok(&format!("wait --for=condition=established crd/widgets.{group}")).await;
    let name = format!("customresourcedefinition.apiextensions.k8s.io/widgets.{group}");
    assert_eq!(waited, format!("{name} condition met"));
    eventually("the kind is served", || async {
        c.run(&format!("get --raw /apis/{group}/v1/widgets")).await.map(drop)
    })
    .await;
}

pub async fn a_definition_is_served_and_takes_its_objects_along(c: &Cluster) {
    define(c).await;
    let group = c.group();
    c.apply(&c.widget("{size: 3, color: red}")).await;
    let kind = format!("widget.{group}/w");
    let listed = c.table(&format!("get {}", c.category())).await;
    assert_eq!(listed, ["NAME COLOR READY", "w red"]);
    let rows = c.table(&format!("get widgets.{group} -o wide")).await;
    assert_eq!(rows, ["NAME COLOR READY SIZE", "w red 3"]);
    let select = |field: &str| format!("get widgets.{group} --field-selector {field} -o name");
    assert_eq!(c.table(&select("spec.color=red")).await, [kind.as_str()]);
    assert_eq!(c.table(&select("spec.color=green")).await, [""; 0]);
    let refused = c.fails(&select("spec.size=3")).await;
    assert!(refused.contains("field label not supported: spec.size"), "{refused}");
    let listed = c.ok(&format!("api-resources --api-group={group} --no-headers")).await;
    let listed: Vec<&str> = listed.split_whitespace().collect();
    assert_eq!(listed, ["widgets", &format!("{group}/v1"), "true", "Widget"]);
    eventually("the kind is explained", || async {
        let told = c.run(&format!("explain widgets.{group}.spec.size")).await?;
        if told.contains("FIELD: size <integer>") { Ok(()) } else { Err(told) }
    })
    .await;
    // A definition that is none.
    let text = c.definition(&format!("other.{group}"));
    let wrong = [
        ("metadata: {name: widgets.", "metadata: {name: gadgets.", "metadata.name"),
        ("minimum: 1,", "minimum: 1, default: x,", "default"),
        ("self.size <= 10", "self.size <=", "compilation failed"),
        ("kind: Widget", "kind: Wid_get", "a DNS-1035 label must consist of"),
    ];
    for (from, to, complaint) in wrong {
        let file = c.file("wrong.yaml", &text.replace(from, to));
        let refused = c.fails(&format!("apply -f {file}")).await;
        assert!(refused.contains(complaint), "{refused}");
    }
    c.ok(&format!("delete crd widgets.{group}")).await;
    eventually("the kind is no longer served", || async {
        match c.run(&format!("get --raw /apis/{group}/v1/widgets")).await {
            Err(words) if words.contains("could not find the requested resource") => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

pub async fn objects_are_defaulted_and_pruned(c: &Cluster) {
    define(c).await;
    c.apply(&c.widget("{size: 3, port: 50%, free: {a: {b: 1}}, parts: [{name: x}]}")).await;
    let shown = c.ok(&c.wd("get wd w -o jsonpath={.spec}")).await;
    assert_eq!(
        shown,
        r#"{"color":"green","free":{"a":{"b":1}},"parts":[{"count":7,"name":"x"}],"port":"50%","replicas":1,"size":3}"#
    );
    let file = c.file("pruned.yaml", &c.widget("{size: 4, nonsense: {a: b}, free: {x: z}}"));
    c.ok(&format!("apply --validate=false -f {file}")).await;
    let shown = c.ok(&c.wd("get wd w -o jsonpath={.spec}")).await;
    assert_eq!(shown, r#"{"color":"green","free":{"x":"z"},"replicas":1,"size":4}"#);
    // A null of a field with a default is that default.
    c.ok(&c.wd(r#"patch wd w --type merge -p {"spec":{"color":null,"replicas":null}}"#)).await;
    let shown = c.ok(&c.wd("get wd w -o jsonpath={.spec.color}{.spec.replicas}")).await;
    assert_eq!(shown, "green1");
}

pub async fn objects_are_judged_by_schema_and_rules(c: &Cluster) {
    define(c).await;
    for (spec, complaints) in [
        (
            "{size: 200, color: red}",
            vec![
                "spec.size: Invalid value: 200: spec.size in body should be less than or equal to 100",
            ],
        ),
        (
            "{size: 2, color: blue}",
            vec![r#"spec.color: Unsupported value: "blue": supported values: "red", "green""#],
        ),
        (
            "{color: red}",
            vec!["spec.size: Required value", "some validation rules were not checked"],
        ),
        (
            "{size: x}",
            vec![
                r#"spec.size: Invalid value: "string": spec.size in body must be of type integer: "string""#,
            ],
        ),
        (
            "{size: 2, label: ABCDEF}",
            vec![
                "spec.label: Too long: may not be more than 5 bytes",
                "<nil>: Invalid value: null: some validation rules were not checked",
            ],
        ),
        ("{size: 2, label: ABC}", vec!["spec.label in body should match '^[a-z]+$'"]),
        ("{size: 2, parts: [{count: 1}]}", vec!["spec.parts[0].name: Required value"]),
        (
            "{size: 2, parts: [{name: a}, {name: a}]}",
            vec![r#"spec.parts[1]: Duplicate value: {"name":"a"}"#],
        ),
        ("{size: 2, tags: [a, a]}", vec![r#"spec.tags[1]: Duplicate value: "a""#]),
        ("{size: 20}", vec![r#"spec: Invalid value: "object": big ones are red"#]),
        ("{size: 2, nonsense: 1}", vec![r#"strict decoding error: unknown field "spec.nonsense""#]),
    ] {
        let file = c.file("bad.yaml", &c.widget(spec));
        let refused = c.fails(&format!("apply -f {file}")).await;
        for complaint in complaints {
            assert!(refused.contains(complaint), "{spec}: {refused}");
        }
    }
    c.apply(&c.widget("{size: 5}")).await;
    let refused = c.fails(&c.wd(r#"patch wd w --type merge -p {"spec":{"size":4}}"#)).await;
    assert!(refused.contains("spec: Invalid value: \"object\": widgets only grow"), "{refused}");
    let warned = c.ok(&c.wd(r#"patch wd w --type merge -p {"spec":{"nonsense":1}}"#)).await;
    assert!(warned.contains("Warning: unknown field \"spec.nonsense\""), "{warned}");
    let refused = c.fails(&c.wd(r#"patch wd w -p {"spec":{"size":6}}"#)).await;
    assert!(refused.contains("the body of the request was in an unknown format"), "{refused}");
}

pub async fn status_is_a_part_of_its_own(c: &Cluster) {
    define(c).await;
    c.apply(&c.widget("{size: 5}")).await;
    c.ok(&c.wd(r#"patch wd w --type merge -p {"status":{"replicas":9}}"#)).await;
    assert_eq!(c.ok(&c.wd("get wd w -o jsonpath={.status}{.metadata.generation}")).await, "1");
    c.ok(&c.wd(r#"patch wd w --subresource status --type merge -p {"spec":{"size":77},"status":{"replicas":2,"conditions":[{"type":"Ready","status":"True"}]}}"#)).await;
    let shown = c
        .ok(&c.wd("get wd w -o jsonpath={.spec.size},{.status.replicas},{.metadata.generation}"))
        .await;
    assert_eq!(shown, "5,2,1");
    let met = format!("widget.{}/w condition met", c.group());
    assert_eq!(c.ok(&c.wd("wait --for=condition=Ready wd/w")).await, met);
    assert_eq!(c.ok(&c.wd("wait --for=jsonpath={.status.replicas}=2 wd/w")).await, met);
    c.ok(&c.wd("scale wd w --replicas=4")).await;
    assert_eq!(
        c.ok(&c.wd("get wd w -o jsonpath={.spec.replicas},{.metadata.generation}")).await,
        "4,2"
    );
}

pub async fn lists_by_key_are_owned_by_element(c: &Cluster) {
    define(c).await;
    let one = c.file("one.yaml", &c.widget("{size: 5, parts: [{name: a, count: 1}]}"));
    let two = c.file("two.yaml", &c.widget("{size: 5, parts: [{name: b, count: 2}]}"));
    c.ok(&format!("apply --server-side --field-manager one -f {one}")).await;
    c.ok(&format!("apply --server-side --field-manager two -f {two}")).await;
    let parts = c.ok(&c.wd("get wd w -o jsonpath={.spec.parts[*].name}")).await;
    assert_eq!(parts, "a b");
    let none = c.file("none.yaml", &c.widget("{size: 5}"));
    c.ok(&format!("apply --server-side --field-manager one -f {none}")).await;
    assert_eq!(c.ok(&c.wd("get wd w -o jsonpath={.spec.parts[*].name}")).await, "b");
    let other = c.file("other.yaml", &c.widget("{size: 6, parts: [{name: b, count: 3}]}"));
    let conflict = c.fails(&format!("apply --server-side --field-manager one -f {other}")).await;
    assert!(
        conflict.contains("Apply failed with 2 conflicts: conflicts with \"two\":"),
        "{conflict}"
    );
    assert!(conflict.contains("- .spec.parts[name=\"b\"].count"), "{conflict}");
    let refused = c.file("unknown.yaml", &c.widget("{size: 6, nonsense: 1}"));
    let refused = c.fails(&format!("apply --server-side --field-manager one -f {refused}")).await;
    assert!(refused.contains(".spec.nonsense: field not declared in schema"), "{refused}");
}
