// The form to log in or to make an account. Fields appear when the server asks for them.

import { clean } from "../text.js";
import { $, onSubmit } from "./dom.js";

const SYSTEMS = ["Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux"];
const BROWSERS = ["Edg", "Firefox", "Chrome", "Safari"];

/** The label of this browser in the list of sessions, as "Firefox on Linux". */
function browserLabel() {
  const [browser, system] = [BROWSERS, SYSTEMS].map((names) => names.find((name) => navigator.userAgent.includes(name)));
  return `${browser === "Edg" ? "Edge" : (browser ?? "Browser")} on ${system ?? "a computer"}`;
}

export class Login {
  constructor(chat) {
    this.chat = chat;
    this.fields = $("login-form").elements;
    onSubmit($("login-form"), () => this.submit());
    this.fields.username.addEventListener("input", () => this.ask({}));
    $("login-again").addEventListener("click", () => this.attempt(() => this.chat.resume()));
  }

  /** Shows the form, with the reason why the user is out. */
  show(error) {
    $("login").hidden = false;
    $("login-again").hidden = !this.chat.canResume;
    this.tell(error);
    const { username, password } = this.fields;
    (username.value ? password : username).focus();
  }

  hide() {
    $("login").hidden = true;
    for (const name of ["password", "again", "newPassword", "invitation"]) this.fields[name].value = "";
    this.ask({});
  }

  tell(error) {
    $("login-error").textContent = clean(error);
  }

  /** Shows the fields that are needed besides name and password. */
  ask(needed) {
    const { fields } = this;
    for (const name of ["again", "newPassword", "invitation"]) {
      const isNeeded = Boolean(needed[name]);
      fields[name].parentElement.hidden = !isNeeded;
      fields[name].required = isNeeded;
      if (isNeeded && !fields[name].value) fields[name].focus();
    }
    fields.password.autocomplete = needed.again ? "new-password" : "current-password";
    fields.submit.textContent = needed.again ? "Make account" : "Log in";
  }

  submit() {
    const { username, password, again, remember, invitation, newPassword } = this.fields;
    const isNew = again.required;
    if (isNew && again.value !== password.value) return this.tell("The two passwords differ.");
    return this.attempt(() =>
      this.chat.logIn({
        username: username.value.trim(),
        password: password.value,
        remember: remember.checked ? browserLabel() : null,
        isNew,
        invitation: invitation.required ? invitation.value.trim() : "",
        newPassword: newPassword.required ? newPassword.value : "",
      }),
    );
  }

  async attempt(action) {
    const { submit } = this.fields;
    this.tell("");
    submit.disabled = true;
    await action().catch((error) => this.refused(error));
    submit.disabled = false;
  }

  refused({ code, message }) {
    const { username, again, password } = this.fields;
    const isNew = again.required || code === "new_name";
    this.tell(code === "wrong_password" ? `${message} If this is not your account, choose another name.` : message);
    if (code === "new_name") this.ask({ again: true, invitation: this.fields.invitation.required });
    else if (code === "invitation_required") this.ask({ again: isNew, invitation: true });
    else if (code === "password_change_required") this.ask({ newPassword: true });
    else if (code === "wrong_password") password.select();
    else if (code === "bad_username") username.select();
  }
}
