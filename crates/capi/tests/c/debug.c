/* Debugging messages: who gets them, and when. */

#include "check.h"

static int
on_message (void *user_data, const char *context, const char *msg)
{
  int *messages = user_data;

  if (context == NULL || msg == NULL || *msg == '\0')
    printf ("an empty message\n");
  ++*messages;
  return 0;
}

static void
on_free (void *user_data)
{
  printf ("freed after messages: %d\n", *(int *) user_data > 0);
}

int
main (int argc, char *argv[])
{
  struct nbd_handle *h = create ();
  int messages = 0, before;

  if (argc != 2)
    return 2;
  SHOW (nbd_get_debug (h));
  SHOW (nbd_set_debug_callback (h, (nbd_debug_callback) { on_message, &messages, on_free }));
  MUST (nbd_set_debug (h, false));
  SHOW (nbd_set_debug (h, true));
  SHOW (nbd_get_debug (h));
  MUST (nbd_connect_unix (h, argv[1]));
  printf ("messages: %d\n", messages > 0);
  MUST (nbd_set_debug (h, false));
  before = messages;
  MUST (nbd_flush (h, 0));
  printf ("quiet: %d\n", messages == before);
  MUST (nbd_set_debug (h, true));
  MUST (nbd_flush (h, 0));
  printf ("loud: %d\n", messages > before);
  SHOW (nbd_clear_debug_callback (h));
  MUST (nbd_set_debug (h, false));
  messages = 0;
  MUST (nbd_flush (h, 0));
  printf ("cleared: %d\n", messages == 0);
  messages = 1;
  SHOW (nbd_set_debug_callback (h, (nbd_debug_callback) { on_message, &messages, on_free }));
  /* Another one frees the first; closing frees the last. */
  SHOW (nbd_set_debug_callback (h, (nbd_debug_callback) { on_message, &messages, on_free }));
  nbd_close (h);
  return 0;
}
