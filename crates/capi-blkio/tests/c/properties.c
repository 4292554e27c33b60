/* Every property: in each state, by each function, read and written. */

#include "check.h"

#include <stdarg.h>

static const char *names[] = {
  "driver", "can-add-queues", "read-only", "path", "fd", "direct", "capacity", "max-queues",
  "num-queues", "num-poll-queues", "supports-poll-queues", "num-entries", "queue-size",
  "max-queue-size", "max-mem-regions", "may-pin-mem-regions", "mem-region-alignment",
  "needs-mem-regions", "needs-mem-region-fd", "request-alignment", "optimal-io-alignment",
  "optimal-io-size", "buf-alignment", "optimal-buf-alignment", "max-segments", "max-segment-len",
  "max-transfer", "max-write-zeroes-len", "max-discard-len", "discard-alignment",
  "discard-alignment-offset", "supports-fua-natively", "can-grow", "zoned",
  "max-active-zones", "max-open-zones", "zone-size", "nr-zones", "zone-append-max-bytes",
  "append-support", "max_active_zones", "num_queues", "Driver", "", "nonsense",
};

/* Values that another machine or kernel may have otherwise. */
static const char *varies[] = {
  "fd", "path", "max-segments", "optimal-io-alignment", "optimal-io-size", "discard-alignment",
  "optimal-buf-alignment", "capacity", "num-queues", "max-mem-regions",
};

static const char *states[] = { "created", "connected", "started" };

static struct blkio *
in_state (const char *driver, const char *path, int state)
{
  struct blkio *b;

  if (state == 1)
    return connected (driver, path);
  if (state == 2)
    return started (driver, path);
  MUST (blkio_create (driver, &b));
  return b;
}

/* What is printed about one state; a state that is as the one before is not printed again. */
static char now[16384], before[16384];

__attribute__ ((format (printf, 1, 2))) static void
say (const char *format, ...)
{
  size_t len = strlen (now);
  va_list list;

  va_start (list, format);
  vsnprintf (now + len, sizeof now - len, format, list);
  va_end (list);
}

static void
result_of (const char *what, int result)
{
  say ("  %s: ", what);
  if (result < 0)
    say ("%s [%s]\n", strerrorname_np (-result), blkio_get_error_msg ());
  else
    say ("%d", result);
}

static void
look (struct blkio *b, const char *name)
{
  bool boolean = true;
  int number = -77, result, hide = 0;
  uint64_t large = 77;
  char *text = NULL;
  unsigned i;

  for (i = 0; i < sizeof varies / sizeof varies[0]; ++i)
    hide |= strcmp (name, varies[i]) == 0;
  result_of ("get_bool", result = blkio_get_bool (b, name, &boolean));
  if (result == 0)
    say (" %d\n", boolean);
  result_of ("get_int", result = blkio_get_int (b, name, &number));
  if (result == 0)
    say (hide && number >= 0 ? " ...\n" : " %d\n", number);
  result_of ("get_uint64", result = blkio_get_uint64 (b, name, &large));
  if (result == 0)
    say (hide ? " ...\n" : " %" PRIu64 "\n", large);
  result_of ("get_str", result = blkio_get_str (b, name, &text));
  if (result == 0)
    say (hide && text[0] != '-' && text[0] != '\0' ? " ...\n" : " '%s'\n", text);
  free (text);
}

static void
change (const char *driver, const char *path, int state, const char *name)
{
  const char *values[] = { "1", "-1", "true", "", "99999999999", "x" };
  struct blkio *b;
  char what[64], *text;
  unsigned i;
  int result;

  for (i = 0; i < 3 + sizeof values / sizeof values[0]; ++i) {
    b = in_state (driver, path, state);
    if (i == 0)
      result_of ("set_bool true", result = blkio_set_bool (b, name, true));
    else if (i == 1)
      result_of ("set_int 2", result = blkio_set_int (b, name, 2));
    else if (i == 2)
      result_of ("set_uint64 4096", result = blkio_set_uint64 (b, name, 4096));
    else {
      snprintf (what, sizeof what, "set_str '%s'", values[i - 3]);
      result_of (what, result = blkio_set_str (b, name, values[i - 3]));
    }
    if (result == 0) {
      MUST (blkio_get_str (b, name, &text));
      say (" '%s'\n", text);
      free (text);
    }
    blkio_destroy (&b);
  }
}

int
main (int argc, char *argv[])
{
  unsigned i;
  int state;

  if (argc != 3)
    return 2;
  for (i = 0; i < sizeof names / sizeof names[0]; ++i)
    for (state = 0; state < 3; ++state) {
      struct blkio *b = in_state (argv[1], argv[2], state);

      now[0] = '\0';
      look (b, names[i]);
      blkio_destroy (&b);
      change (argv[1], argv[2], state, names[i]);
      if (state > 0 && strcmp (now, before) == 0)
        printf ("%s, %s: the same\n", names[i], states[state]);
      else
        printf ("%s, %s\n%s", names[i], states[state], now);
      strcpy (before, now);
    }
  return 0;
}
