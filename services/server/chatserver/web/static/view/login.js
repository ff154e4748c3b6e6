// The form to log in or to make an account. Fields appear when the server asks for them.

import { clean } from "../text.js";
import { $ } from "./dom.js";

const SYSTEMS = [["Android", /Android/], ["iPhone", /iPhone/], ["iPad", /iPad/], ["Windows", /Windows/], ["macOS", /Mac OS/], ["Linux", /Linux/]];
const BROWSERS = [["Edge", /Edg\//], ["Firefox", /Firefox\//], ["Chrome", /Chrome\//], ["Safari", /Safari\//]];

/** The label of this browser in the list of sessions, as "Firefox on Linux". */
export function browserLabel(agent = navigator.userAgent) {
  const found = (table) => table.find(([, pattern]) => pattern.test(agent))?.[0];
  return `${found(BROWSERS) ?? "A browser"} on ${found(SYSTEMS) ?? "a computer"}`;
}

export class Login {
  constructor(chat) {
    this.chat = chat;
    this.form = $("login-form");
    this.fields = this.form.elements;
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.submit();
    });
    this.fields.username.addEventListener("input", () => this.ask({}));
  }

  show(error = "") {
    $("login").hidden = false;
    this.tell(error);
    (this.fields.username.value ? this.fields.password : this.fields.username).focus();
  }

  hide() {
    $("login").hidden = true;
    for (const name of ["password", "again", "newPassword", "invitation"]) this.fields[name].value = "";
    this.ask({});
  }

  tell(error) {
    $("login-error").textContent = clean(error);
  }

  /** Shows the fields that are needed. */
  ask({ again = false, newPassword = false, invitation = false }) {
    const { fields } = this;
    this.isNew = again;
    const wanted = { again, newPassword, invitation };
    for (const [name, isWanted] of Object.entries(wanted)) {
      fields[name].closest("label").hidden = !isWanted;
      fields[name].required = isWanted;
    }
    fields.password.autocomplete = again ? "new-password" : "current-password";
    fields.submit.textContent = again ? "Make account" : "Log in";
    $("login-hint").hidden = again || newPassword;
    const first = Object.keys(wanted).find((name) => wanted[name] && !fields[name].value);
    if (first) fields[first].focus();
  }

  async submit() {
    const { fields } = this;
    const value = (name) => (fields[name].required ? fields[name].value : undefined);
    if (this.isNew && fields.again.value !== fields.password.value) {
      this.tell("The two passwords differ.");
      fields.again.select();
      return;
    }
    this.tell("");
    fields.submit.disabled = true;
    try {
      await this.chat.logIn({
        username: fields.username.value.trim(),
        password: fields.password.value,
        remember: fields.remember.checked ? browserLabel() : null,
        isNew: this.isNew,
        invitation: value("invitation")?.trim(),
        newPassword: value("newPassword"),
      });
    } catch (error) {
      this.refused(error);
    } finally {
      fields.submit.disabled = false;
    }
  }

  refused(error) {
    const { fields } = this;
    const again = this.isNew;
    if (error.code === "new_name") {
      this.tell(`${fields.username.value.trim()} is a new name. To make this account, type the password again.`);
      this.ask({ again: true });
      return;
    }
    this.tell(error.message);
    if (error.code === "invitation_required") this.ask({ again, invitation: true });
    else if (error.code === "password_change_required") this.ask({ newPassword: true });
    else if (error.code === "wrong_password") fields.password.select();
    else if (error.code === "bad_username") fields.username.select();
  }
}
