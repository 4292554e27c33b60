/* A server as a subprocess, on its stdin and stdout, and its end. */

#include "check.h"

#include <signal.h>
#include <sys/wait.h>

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  char *server[] = { "nbdkit", "-s", "--exit-with-parent", "memory", "1M", NULL };
  char *missing[] = { "/no/such/program", NULL };
  char *false_command[] = { "false", NULL };
  char *empty[] = { NULL };
  char buf[512];

  (void) argv;
  if (argc != 1)
    return 2;
  MUST (nbd_connect_command (h, server));
  SHOW (nbd_get_size (h));
  memset (buf, 'a', sizeof buf);
  MUST (nbd_pwrite (h, buf, sizeof buf, 1024, 0));
  memset (buf, 0, sizeof buf);
  MUST (nbd_pread (h, buf, sizeof buf, 1024, 0));
  printf ("read %c\n", buf[511]);
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);
  printf ("children left: %d\n", waitpid (-1, NULL, WNOHANG) != -1);

  h = create ();
  MUST (nbd_connect_command (h, server));
  SHOW (nbd_kill_subprocess (h, SIGKILL));
  SHOW (nbd_pread (h, buf, sizeof buf, 0, 0) == -1);
  SHOW (nbd_aio_is_dead (h) || nbd_aio_is_closed (h));
  nbd_close (h);
  printf ("children left: %d\n", waitpid (-1, NULL, WNOHANG) != -1);

  h = create ();
  SHOW (nbd_connect_command (h, empty));
  SHOW (nbd_connect_command (h, missing) == -1);
  SHOW (nbd_aio_is_dead (h));
  nbd_close (h);

  h = create ();
  SHOW (nbd_connect_command (h, false_command) == -1);
  nbd_close (h);
  printf ("children left: %d\n", waitpid (-1, NULL, WNOHANG) != -1);
  return 0;
}
