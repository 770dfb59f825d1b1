use super::*;

#[tokio::test]
async fn every_documented_operation_is_there_and_no_other() {
    let client = Client::new();
    let document = client.get("/openapi.json").await.json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        let url = path
            .replace("{appInstanceId}", "none")
            .replace("{trafficRuleId}", "r")
            .replace("{dnsRuleId}", "d")
            .replace("{vipId}", "none")
            .replace("{zone}/{ueAddress}", "0/10.45.0.1");
        for method in ["GET", "PUT", "POST", "DELETE"] {
            let known = operations.get(method.to_ascii_lowercase()).is_some();
            let request = Request::builder()
                .method(method)
                .uri(&url)
                .body(Body::empty())
                .unwrap();
            let response = client.router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status() != 405, known, "{method} {path}");
            if known && response.status() != 404 {
                let documented = operations[method.to_ascii_lowercase()]["responses"]
                    .as_object()
                    .unwrap();
                assert!(
                    documented.contains_key(response.status().as_str()),
                    "{method} {path} {}",
                    response.status()
                );
            }
        }
    }
}

/// The router cannot be asked for its routes, its source can.
#[tokio::test]
async fn every_route_is_documented() {
    let document = Client::new().get("/openapi.json").await.json();
    let paths = document["paths"].as_object().unwrap();
    let named = |path: &str| {
        let place = |part: &str| {
            if part.starts_with('{') {
                "{}".to_owned()
            } else {
                part.to_owned()
            }
        };
        path.split('/').map(place).collect::<Vec<_>>().join("/")
    };
    let documented: Vec<_> = paths.keys().map(|path| named(path)).collect();
    let source = include_str!("../mod.rs");
    let literals = |call: &str| -> Vec<String> {
        let calls = source.split(call).skip(1);
        calls
            .map(|rest| rest.split('"').nth(1).unwrap().to_owned())
            .collect()
    };
    let roots = literals(".nest(");
    let routes = literals(".route(");
    assert!(
        roots.len() == 3 && routes.len() > 15,
        "{roots:?} {routes:?}"
    );
    for route in routes {
        let whole = roots.iter().map(|root| named(&format!("{root}{route}")));
        let served = whole.chain([named(&route)]);
        assert!(
            served.into_iter().any(|path| documented.contains(&path)),
            "{route} is not documented"
        );
    }
}

#[tokio::test]
async fn answers_are_as_documented() {
    let client = with_application().await;
    client.put(SESSION, &session()).await;
    client.put(VIP, &vip()).await;
    let document = client.get("/openapi.json").await.json();
    let mut checked = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        let url = path
            .replace("{appInstanceId}", "video")
            .replace("{trafficRuleId}", "r1")
            .replace("{dnsRuleId}", "d1")
            .replace("{vipId}", "web")
            .replace("{zone}/{ueAddress}", "0/10.45.0.7");
        let schema =
            &operations["get"]["responses"]["200"]["content"]["application/json"]["schema"];
        if schema.is_null() {
            continue;
        }
        let answer = client.get(&url).await.json();
        fits(&document, schema, &answer).unwrap_or_else(|why| panic!("{path}: {why}"));
        checked += 1;
        let update = &operations["put"];
        let own = ["applications/{appInstanceId}", "{ueAddress}", "{vipId}"];
        if !update.is_null() && !own.iter().any(|it| path.ends_with(it)) {
            let body = &update["requestBody"]["content"]["application/json"]["schema"];
            fits(&document, body, &answer).unwrap();
            let schema = &update["responses"]["200"]["content"]["application/json"]["schema"];
            fits(&document, schema, &client.put(&url, &answer).await.json()).unwrap();
        }
    }
    assert!(checked > 15, "{checked}");
    let question = json!({"in": "ran0", "flow": "udp 10.45.0.7:5000 > 203.0.113.9:443"});
    let answer = client
        .send("POST", "/mp2/v1/explain", &[], question.to_string())
        .await
        .json();
    fits(
        &document,
        &json!({"$ref": "#/components/schemas/Explanation"}),
        &answer,
    )
    .unwrap();
    let problem = client.get("/nothing").await.json();
    fits(
        &document,
        &json!({"$ref": "#/components/schemas/ProblemDetails"}),
        &problem,
    )
    .unwrap();
}

/// Whether a value is as a schema says, with no member that the schema does not know. Enough of JSON Schema for ours.
fn fits(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    if let Some(reference) = schema["$ref"].as_str() {
        return fits(document, document.pointer(&reference[1..]).unwrap(), value);
    }
    if let Some(parts) = schema["allOf"].as_array() {
        let members = parts.iter().map(|part| {
            let reference = part["$ref"]
                .as_str()
                .map(|r| document.pointer(&r[1..]).unwrap());
            reference.unwrap_or(part)["properties"]
                .as_object()
                .unwrap()
                .clone()
        });
        return fits(
            document,
            &json!({"properties": members.flatten().collect::<Value>()}),
            value,
        );
    }
    if let Some(choices) = schema["oneOf"].as_array() {
        let fitting = choices
            .iter()
            .any(|choice| fits(document, choice, value).is_ok());
        return fitting
            .then_some(())
            .ok_or_else(|| format!("{value} is none of {schema}"));
    }
    let kind = match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    let allowed = |name: &Value| name == kind || (name == "number" && kind == "integer");
    if !(schema["type"].is_null()
        || allowed(&schema["type"])
        || schema["type"]
            .as_array()
            .is_some_and(|t| t.iter().any(allowed)))
    {
        return Err(format!("{value} is not {}", schema["type"]));
    }
    if schema["enum"]
        .as_array()
        .is_some_and(|values| !values.contains(value))
    {
        return Err(format!("{value} is not one of {}", schema["enum"]));
    }
    let missing = schema["required"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|name| value.get(name.as_str().unwrap()).is_none());
    if let Some(name) = missing {
        return Err(format!("{value} has no {name}"));
    }
    for (index, item) in value.as_array().into_iter().flatten().enumerate() {
        fits(document, &schema["items"], item).map_err(|why| format!("/{index}: {why}"))?;
    }
    for (name, member) in value.as_object().into_iter().flatten() {
        match schema["properties"].as_object() {
            Some(known) => {
                let schema = known
                    .get(name)
                    .ok_or_else(|| format!("{name} is not documented"))?;
                fits(document, schema, member).map_err(|why| format!("/{name}: {why}"))?;
            }
            None if schema["additionalProperties"].is_object() => {
                fits(document, &schema["additionalProperties"], member)
                    .map_err(|why| format!("/{name}: {why}"))?;
            }
            // Only the documentation itself is not described any further.
            None => assert!(
                value.get("openapi").is_some(),
                "{name} of {value} is not described"
            ),
        }
    }
    Ok(())
}
