/* A server that dies with commands in flight: each of them fails, once, and the handle stays dead. */

#include "check.h"

#include <signal.h>

#define COMMANDS 4

static char buf[COMMANDS][512];
static int completed;

static int
on_completion (void *user_data, int *error)
{
  (void) user_data;
  printf ("  error %d\n", *error);
  completed++;
  return 0;
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  char *server[] = { "nbdkit", "-s", "--exit-with-parent", "--filter=delay", "memory", "1M",
                     "rdelay=60", NULL };
  int64_t cookies[COMMANDS];
  int i, polled;

  (void) argv;
  if (argc != 1)
    return 2;
  MUST (nbd_connect_command (h, server));
  for (i = 0; i < COMMANDS; ++i)
    cookies[i] = MUST (nbd_aio_pread (h, buf[i], 512, i * 512,
                                      (nbd_completion_callback) { .callback = on_completion }, 0));
  SHOW (nbd_aio_in_flight (h));
  SHOW (nbd_poll (h, 0));
  SHOW (nbd_kill_subprocess (h, SIGKILL));
  /* Whether the end is an error of the poll or only of the commands is for the library to say. */
  do
    polled = nbd_poll (h, 10000);
  while (polled == 1 && completed < COMMANDS);
  printf ("completed %d\n", completed);
  SHOW (nbd_aio_is_dead (h) || nbd_aio_is_closed (h));
  SHOW (nbd_aio_is_ready (h));
  SHOW (nbd_aio_in_flight (h));
  for (i = 0; i < COMMANDS; ++i)
    SHOW (nbd_aio_command_completed (h, cookies[i]));
  SHOW (nbd_pread (h, buf[0], 512, 0, 0) == -1);
  SHOW (nbd_poll (h, 0) == -1);
  nbd_close (h);
  return 0;
}
