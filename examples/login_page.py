"""A login page whose second factor is a code by SMS, with the standard library only.

  WATCHWORD_URL=http://127.0.0.1:8080 WATCHWORD_KEY=… python examples/login_page.py

Open http://localhost:8000 and sign in as jane with the password wonderland. docs/login-page.md
explains each step.
"""

import html, http.cookies, json, os, secrets, urllib.error, urllib.parse, urllib.request, wsgiref.simple_server

# The first factor is up to the application; a real one stores no password in clear.
USERS = {"jane": {"password": "wonderland", "phone": "+4915112345678", "email": "jane@example.org"}}
# The state of each browser, by its cookie. No page shows the verification's id.
SESSIONS = {}
TEXTS = {"cooldown": "A code was sent a moment ago.", "rate_limited": "Too many codes were requested.",
         "too_many_sends": "Use the last code.", "destination_blocked": "We cannot send a code to your number.",
         "subject_locked": "Too many wrong codes.", "max_attempts_reached": "Too many wrong codes: send again.",
         "pending": "This code is not right.", "invalid_code": "Type digits.", "expired": "Too late: send again."}
FORMS = {"password": "<input name=user> <input name=password type=password> <button>Sign in</button>",
         "code": "<input name=code inputmode=numeric autocomplete=one-time-code required> <button>Check</button>"
                 "</form><form method=post><button>Send again</button>", "done": "Welcome."}


def watchword(path, body):
    """Returns the status and the document. The same body is safe to repeat after a lost answer."""
    headers = {"Authorization": f"Bearer {os.environ['WATCHWORD_KEY']}", "Content-Type": "application/json"}
    request = urllib.request.Request(os.environ["WATCHWORD_URL"] + path, json.dumps(body).encode(), headers)
    for _ in range(2):
        try:
            with urllib.request.urlopen(request, timeout=5) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                return error.code, json.load(error) | {"wait": error.headers["Retry-After"]}
        except OSError:
            pass
    return 503, {}


def explain(answer):
    text = TEXTS.get(answer.get("code") or answer.get("status"), "That did not work. Try again in a moment.")
    return f"{text} Wait {answer['wait']} s." if answer.get("wait") else text


def send_code(session, environ):
    user, client, status = USERS[session["user"]], {"ip": environ["REMOTE_ADDR"]}, 404
    if "id" in session:
        status, answer = watchword(f"/v1/verifications/{session['id']}/resend", {"client": client})
    if status == 404:  # no verification yet, or it has ended
        status, answer = watchword("/v1/verifications", {
            "channel": "sms", "to": user["phone"], "subject": session["user"], "purpose": "login",
            "locale": environ.get("HTTP_ACCEPT_LANGUAGE"), "client": client,
            "fallback": [{"channel": "email", "to": user["email"], "after_seconds": 60}]})
    if status != 202:
        return explain(answer)
    session["id"] = answer["id"]
    return f"We are sending a code to {answer['to']}."  # 202: it is queued, not delivered


def check(session, code):
    body = {"code": code, "check_id": secrets.token_urlsafe(), "subject": session["user"], "purpose": "login"}
    answer = watchword(f"/v1/verifications/{session.get('id', 'none')}/check", body)[1]
    session["form"] = "done" if answer.get("valid") else "code"
    return "" if answer.get("valid") else explain(answer)


def page(environ, start):
    cookie = http.cookies.SimpleCookie(environ.get("HTTP_COOKIE", "")).get("session")
    token = cookie.value if cookie else ""
    session, text = SESSIONS.get(token, {"form": "password"}), ""
    if environ["REQUEST_METHOD"] == "POST" and session["form"] != "done":
        body = environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"] or 0)).decode()
        form, text = dict(urllib.parse.parse_qsl(body, True)), "User or password is not right."
        if session["form"] == "code":
            text = check(session, form["code"]) if "code" in form else send_code(session, environ)
        elif form.get("password") == USERS.get(form.get("user"), {}).get("password", ""):
            # A new cookie prevents session fixation.
            token, session = secrets.token_urlsafe(), {"form": "code", "user": form["user"]}
            SESSIONS[token], text = session, send_code(session, environ)
    start("200 OK", [("Content-Type", "text/html; charset=utf-8"), ("Cache-Control", "no-store"),
                     ("Set-Cookie", f"session={token}; HttpOnly; Secure; SameSite=Strict")])
    return [f"<p>{html.escape(text)}<form method=post>{FORMS[session['form']]}</form>".encode()]


wsgiref.simple_server.make_server("localhost", int(os.environ.get("PORT", 8000)), page).serve_forever()
