/* A client for the dialect frames, as an example of how to write one. The wire: ../wire/frames.md.

   cc -std=c11 -O2 -Wall -Wextra -Wpedantic -o frames_client frames_client.c
   ./frames_client HOST PORT USERNAME

   It asks for a line at a time: first for the password, which anybody who looks over your shoulder can read, then for
   operations (PM, DM, CH, EX) and for what they need. What others say is shown as it arrives, at a prompt, too. Lines
   that come ahead, from a pipe, are used one by one, when their step is due; where they end it leaves with EX.

   Exit codes: 0 you left; 1 no connection, or it was lost; 2 wrong arguments; 3 you were not let in. */
#define _POSIX_C_SOURCE 200809L
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum { HEADER_BYTES = 5, FRAME_MAX_BYTES = 65536, PAYLOAD_MAX_BYTES = FRAME_MAX_BYTES - HEADER_BYTES };
enum exit_code { LEFT = 0, LOST = 1, USAGE = 2, REFUSED = 3 };

static int server;                    /* its socket */
static bool is_inside;                /* has the server said WELCOME? */
static enum exit_code outcome = LOST; /* what it means if the connection ends now */

/* The frame that was received last. In C frames a space stands between head and rest, in D frames a line feed. */
static struct {
  char type;
  char *rest; /* SENT 18: "18". Of a message: its text. */
  char head[PAYLOAD_MAX_BYTES + 1];
} frame;

/* What was read from standard input, and not used yet. */
static struct {
  size_t start, end;
  bool is_ended; /* nothing more can be read */
  bool is_over;  /* and a line was asked for in vain */
  char bytes[PAYLOAD_MAX_BYTES + 1];
} input;

static _Noreturn void end(enum exit_code code, const char *what, const char *why) {
  fprintf(stderr, "frames_client: %s%s%s\n", what, *why ? ": " : "", why);
  exit(code);
}

/* The connection has ended, in whatever way. */
static _Noreturn void end_with_connection(const char *why) {
  if (outcome == LEFT)
    exit(LEFT);
  end(outcome, outcome == REFUSED ? "you were not let in" : "the connection was lost", why);
}

/* Print a line, at once. */
static void show(const char *format, ...) {
  va_list words;
  va_start(words, format);
  vprintf(format, words);
  va_end(words);
  putchar('\n');
  if (fflush(stdout) == EOF)
    end(LOST, "can't write the output", strerror(errno));
}

/* --- the connection --- */

static int connect_to(const char *host, const char *port) {
  struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM}, *found;
  int problem = getaddrinfo(host, port, &hints, &found);
  if (problem)
    end(LOST, "can't find the server", gai_strerror(problem));
  for (struct addrinfo *each = found; each; each = each->ai_next) {
    int fd = socket(each->ai_family, each->ai_socktype, each->ai_protocol);
    if (fd >= 0 && connect(fd, each->ai_addr, each->ai_addrlen) == 0) {
      freeaddrinfo(found);
      return fd;
    }
    problem = errno;
    if (fd >= 0)
      close(fd);
  }
  end(LOST, "can't reach the server", strerror(problem));
}

/* One read may bring less than a frame. Nothing is read of the next one, so that poll() can tell of it. */
static void read_all(char *bytes, size_t size) {
  while (size > 0) {
    ssize_t count = read(server, bytes, size);
    if (count < 0 && errno == EINTR)
      continue;
    if (count <= 0)
      end_with_connection(count < 0 ? strerror(errno) : "the server closed it");
    bytes += count;
    size -= (size_t)count;
  }
}

/* --- frames --- */

/* What others say must not move the cursor, or worse. C2 80 to C2 9F are control characters, too, written in UTF-8. */
static void make_harmless(char *text, size_t size) {
  for (size_t i = 0; i < size; i++) {
    unsigned char byte = (unsigned char)text[i], next = (unsigned char)(i + 1 < size ? text[i + 1] : 0);
    if (byte == '\n')
      text[i] = ' ';
    else if (byte < 0x20 || byte == 0x7f)
      text[i] = '?';
    else if (byte == 0xc2 && next >= 0x80 && next < 0xa0)
      text[i] = text[i + 1] = '?';
  }
}

/* The next frame is now in `frame`. */
static void receive(void) {
  char header[HEADER_BYTES];
  read_all(header, sizeof header);
  uint32_t size = 0;
  for (int i = 1; i < HEADER_BYTES; i++)
    size = size << 8 | (unsigned char)header[i];
  frame.type = header[0];
  if ((frame.type != 'C' && frame.type != 'D') || size > PAYLOAD_MAX_BYTES)
    end(LOST, "the connection is of no use", "the server sent something that is no frame");
  read_all(frame.head, size);
  char *gap = memchr(frame.head, frame.type == 'C' ? ' ' : '\n', size);
  make_harmless(frame.head, size);
  frame.head[size] = '\0';
  frame.rest = gap ? gap + 1 : frame.head + size;
  if (gap)
    *gap = '\0';
}

static bool is(const char *command) { return frame.type == 'C' && strcmp(frame.head, command) == 0; }

static void show_message(void) {
  char kind[8], from[33], id[21];
  if (sscanf(frame.head, "%7s %32s %20s", kind, from, id) == 3)
    show("[%s %s] %s: %s", kind, id, from, frame.rest);
  else
    show("%s %s", frame.head, frame.rest);
}

/* Receive a frame, whatever it is, and show it. False if it is a command that nobody here knows. */
static bool take_frame(void) {
  static const char *const shown[] = {"WELCOME", "DENIED", "ONLINE", "SENT", "STORED", "NOUSER", "HISTORY", "ERROR"};
  receive();
  if (frame.type == 'D') {
    show_message();
    return true;
  }
  if (is("BYE")) {
    show("[BYE%s%s]", *frame.rest ? " " : "", frame.rest);
    end_with_connection(frame.rest);
  }
  if (!is_inside && (is("ERROR") || is("DENIED")))
    outcome = REFUSED;
  for (size_t i = 0; i < sizeof shown / sizeof *shown; i++)
    if (is(shown[i])) {
      show("[%s %s]", frame.head, frame.rest);
      return true;
    }
  return is("PASSWORD") || is("READY");
}

/* A text that is too long for a frame is cut: the rest is still too long for the server, which says so. */
static void send_frame(char type, const char *text) {
  static char bytes[FRAME_MAX_BYTES];
  size_t size = strlen(text), sent = 0;
  if (size > PAYLOAD_MAX_BYTES)
    size = PAYLOAD_MAX_BYTES;
  bytes[0] = type;
  for (int i = 1; i < HEADER_BYTES; i++)
    bytes[i] = (char)(size >> (8 * (HEADER_BYTES - 1 - i)) & 0xff);
  memcpy(bytes + HEADER_BYTES, text, size);
  for (size += HEADER_BYTES; sent < size;) {
    ssize_t count = write(server, bytes + sent, size - sent);
    if (count >= 0)
      sent += (size_t)count;
    else if (errno != EINTR)
      for (;;)
        take_frame(); /* the server may have said why, before it closed */
  }
}

/* Send, and wait for the answer. Messages of others may come before it. */
static void step(char type, const char *text) {
  send_frame(type, text);
  while (!take_frame() || frame.type == 'D')
    continue;
}

/* --- standard input --- */

/* The next line; null if it is not there yet. Behind the end of the input all lines are empty. */
static char *take_line(void) {
  char *line = input.bytes + input.start, *stop = memchr(line, '\n', input.end - input.start);
  if (!stop && !input.is_ended)
    return NULL;
  input.is_over = input.is_ended && input.start == input.end;
  input.start = stop ? input.start + (size_t)(stop - line) + 1 : input.end;
  *(stop ? stop : input.bytes + input.end) = '\0';
  return line;
}

/* Read on; there is no whole line. */
static void read_input(void) {
  input.end -= input.start;
  memmove(input.bytes, input.bytes + input.start, input.end);
  input.start = 0;
  if (input.end == PAYLOAD_MAX_BYTES)
    input.end /= 2; /* what is left of such a line is still too long for the server, which says so */
  ssize_t count = read(STDIN_FILENO, input.bytes + input.end, PAYLOAD_MAX_BYTES - input.end);
  if (count > 0)
    input.end += (size_t)count;
  else if (count == 0 || errno != EINTR)
    input.is_ended = true;
}

/* Ask the person for a line, and show what arrives in the meantime. The line is good until the next one is asked for. */
static const char *ask(const char *what) {
  struct pollfd ends[] = {{.fd = server, .events = POLLIN}, {.fd = STDIN_FILENO, .events = POLLIN}};
  const char *line;
  show("%s: ", what);
  while (!(line = take_line())) {
    if (poll(ends, 2, -1) < 0) {
      if (errno != EINTR)
        end(LOST, "can't wait for what comes next", strerror(errno));
      continue;
    }
    if (ends[0].revents)
      take_frame();
    if (ends[1].revents)
      read_input();
  }
  return line;
}

/* --- the dialogues --- */

static void log_in(const char *username) {
  char what[32];
  step('C', username);
  if (!is("PASSWORD"))
    end(REFUSED, "you were not let in", frame.rest);
  snprintf(what, sizeof what, "password (%s)", frame.rest);
  while (!is("WELCOME")) {
    const char *password = ask(what);
    if (input.is_over)
      exit(LEFT); /* EX would be taken for a password */
    step('C', password);
  }
  is_inside = true;
  outcome = LOST;
}

/* The last step of a message. If the input is over, the empty text is a way out of the dialogue. */
static void say(void) { step('D', ask("message")); }

static void say_to_all(void) {
  step('C', "PM");
  if (is("READY"))
    say();
}

static void say_to_one(void) {
  step('C', "DM");
  if (!is("ONLINE"))
    return;
  send_frame('C', ask("recipient"));
  say(); /* whether there is such a user is told when the message has come */
}

static void show_history(void) {
  step('C', "CH");
  for (long due = is("HISTORY") ? strtol(frame.rest, NULL, 10) : 0; due > 0; due--)
    take_frame();
}

static void leave(void) {
  send_frame('C', "EX");
  outcome = LEFT;
  for (;;)
    take_frame(); /* until BYE */
}

static void obey(const char *operation) {
  if (strcasecmp(operation, "PM") == 0)
    say_to_all();
  else if (strcasecmp(operation, "DM") == 0)
    say_to_one();
  else if (strcasecmp(operation, "CH") == 0)
    show_history();
  else if (strcasecmp(operation, "EX") == 0)
    leave();
  else
    show("PM (to all), DM (to one), CH (history) or EX (leave)?");
}

int main(int count, char **arguments) {
  if (count != 4) {
    fprintf(stderr, "usage: frames_client HOST PORT USERNAME\n");
    return USAGE;
  }
  signal(SIGPIPE, SIG_IGN); /* write() tells it, too */
  server = connect_to(arguments[1], arguments[2]);
  log_in(arguments[3]);
  for (;;) {
    const char *operation = ask("operation");
    obey(input.is_over ? "EX" : operation);
  }
}
