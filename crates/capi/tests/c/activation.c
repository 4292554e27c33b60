/* A server that is handed its socket as systemd does it: argv[1] is a qcow2 image. */

#include "check.h"

#include <sys/wait.h>

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  char buf[512];

  if (argc != 2)
    return 2;
  char *server[] = { "qemu-nbd", "-f", "qcow2", argv[1], NULL };
  MUST (nbd_connect_systemd_socket_activation (h, server));
  SHOW (nbd_get_size (h));
  memset (buf, 'q', sizeof buf);
  MUST (nbd_pwrite (h, buf, sizeof buf, 65536, 0));
  MUST (nbd_flush (h, 0));
  memset (buf, 0, sizeof buf);
  MUST (nbd_pread (h, buf, sizeof buf, 65536, 0));
  printf ("read %c\n", buf[511]);
  MUST (nbd_shutdown (h, 0));
  nbd_close (h);
  printf ("children left: %d\n", waitpid (-1, NULL, WNOHANG) != -1);
  return 0;
}
