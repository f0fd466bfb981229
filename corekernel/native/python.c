/* Between Python and the dispatcher, both ways, on the path where a cffi call or callback would cost more than the
 * call itself.
 *
 * Callers: `issue`, `resume` and the `call` of a port, put into corekernel.dispatcher by hmk_python_open(). They keep the interpreter's lock
 * while a reply from another CPU is a few microseconds away, and give it up for any longer wait.
 *
 * Handlers: a carrier keeps one Python thread state for its life. It takes the interpreter's lock when a request has
 * come, and gives it back after the reply is out, so that the caller never waits for the release.
 *
 * A message is a tuple of registers and a payload (corekernel/port.py). An inline payload becomes bytes: copied once,
 * before any Python code sees it. One in a shared buffer becomes a read-only view of it.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "carrier.h"

#define PORT_ARGUMENTS 6 /* operation, registers, payload, returns, capacity, idempotent */

static PyObject *bindings; /* dispatcher._bindings: carrier's key -> (caller, handlers) */
static PyObject *failed; /* dispatcher._failed(key, operation, error) -> (status, text) */
static PyObject *nothing; /* interface.EMPTY: ((), b"") */
static PyObject *no_registers, *no_payload;

/* ---- the interpreter's lock ---- */

/* A carrier needs the lock: `in_line`, or, for a call of the high class, past those that wait at the gate. */
void hmk_python_enter(struct hmk_carrier *carrier, int in_line) {
  in_line = in_line && hmk_gate_enter(carrier);
  PyEval_RestoreThread(carrier->python_state);
  hmk_gate_inside(carrier);
  if (in_line) hmk_gate_leave(carrier);
}

void hmk_python_leave(struct hmk_carrier *carrier) {
  int awaited = hmk_gate_outside(carrier);
  PyEval_SaveThread();
  if (awaited) hmk_wake(&carrier->pool->inside);
}

/* ---- messages ---- */

static PyObject *registers_of(const uint64_t *words, uint32_t count) {
  if (!count) return Py_NewRef(no_registers);
  PyObject *tuple = PyTuple_New(count);
  for (uint32_t i = 0; tuple && i < count; i++) {
    PyObject *word = PyLong_FromUnsignedLongLong(words[i]);
    if (!word) Py_CLEAR(tuple);
    if (tuple) PyTuple_SET_ITEM(tuple, i, word);
  }
  return tuple;
}

/* Registers out of a tuple; how many, or -1 with an exception set. */
static int words_of(PyObject *tuple, uint64_t *words) {
  if (!PyTuple_Check(tuple) || PyTuple_GET_SIZE(tuple) > HMK_REGISTERS) {
    PyErr_SetString(PyExc_TypeError, "registers are a tuple of at most 8 integers");
    return -1;
  }
  int count = (int)PyTuple_GET_SIZE(tuple);
  for (int i = 0; i < count; i++) {
    words[i] = PyLong_AsUnsignedLongLong(PyTuple_GET_ITEM(tuple, i));
    if (words[i] == (uint64_t)-1 && PyErr_Occurred()) return -1;
  }
  return count;
}

/* ---- callers ---- */

static PyObject *outcome(struct hmk_link *link, int64_t status, uint32_t returns) {
  if (status) return PyLong_FromLongLong(status);
  uint32_t length = link->reply_length;
  if (!returns && !length) return Py_NewRef(nothing);
  const char *at = (const char *)(link->reply_bulk ? link->bulk : link->slot->leg[0].payload);
  PyObject *registers = registers_of(link->rets, returns);
  PyObject *payload = length ? PyBytes_FromStringAndSize(at, length) : Py_NewRef(no_payload);
  PyObject *reply = registers && payload ? PyTuple_Pack(2, registers, payload) : NULL;
  Py_XDECREF(registers);
  Py_XDECREF(payload);
  return reply;
}

/* WAIT is an answer too, and a long wait follows it. */
static int answered_soon(struct hmk_link *link, struct hmk_carrier *carrier) {
  if (carrier && hmk_gate_taken(carrier->pool)) return 0;
  return hmk_reply_soon(link) && HMK_GET(link->slot->leg[0].status) != HMK_E_WAIT;
}

static int64_t finish(struct hmk_link *link) {
  struct hmk_context *context = hmk_current();
  struct hmk_carrier *carrier = context ? context->owner : NULL;
  if (answered_soon(link, carrier)) return hmk_finish(link, &link->message);
  if (carrier) {
    hmk_python_leave(carrier);
    int64_t status = hmk_finish(link, &link->message);
    hmk_python_enter(carrier, context->priority < HMK_PRIORITY_HIGH);
    return status;
  }
  int64_t status;
  Py_BEGIN_ALLOW_THREADS;
  status = hmk_finish(link, &link->message);
  Py_END_ALLOW_THREADS;
  return status;
}

/* Issue one call; `described` is operation, registers, payload, returns. A reply, or a status other than 0. */
static PyObject *issue(struct hmk_link *link, PyObject *const *described) {
  unsigned long operation = PyLong_AsUnsignedLong(described[0]);
  unsigned long returns = PyLong_AsUnsignedLong(described[3]);
  Py_buffer payload;
  if (PyErr_Occurred()) return NULL;
  if (!hmk_link_ready(link)) return PyLong_FromLong(HMK_E_BUSY);
  struct hmk_message *message = &link->message;
  int registers = words_of(described[1], message->args);
  if (registers < 0 || PyObject_GetBuffer(described[2], &payload, PyBUF_SIMPLE)) return NULL;
  message->in = payload.buf;
  message->in_length = payload.len > UINT32_MAX ? UINT32_MAX : (uint32_t)payload.len;
  message->operation = operation > UINT16_MAX ? UINT16_MAX : (uint16_t)operation;
  message->registers = (uint8_t)registers;
  message->returns = returns > HMK_REGISTERS ? HMK_REGISTERS : (uint32_t)returns;
  message->interruptible = 1;
  int64_t status = hmk_start(link, message);
  if (status == HMK_OK) status = finish(link);
  PyBuffer_Release(&payload);
  return outcome(link, status, message->returns);
}

/* issue(address of a link, operation, registers, payload, returns) -> reply, or a status other than 0 */
static PyObject *issue_on(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
  (void)self;
  if (count != 5) return PyErr_Format(PyExc_TypeError, "issue takes 5 arguments");
  struct hmk_link *link = PyLong_AsVoidPtr(arguments[0]);
  return PyErr_Occurred() ? NULL : issue(link, arguments + 1);
}

/* resume(address of a link, payload) -> as issue; goes on with the call that a signal interrupted */
static PyObject *resume(PyObject *self, PyObject *const *arguments, Py_ssize_t count) {
  (void)self;
  if (count != 2) return PyErr_Format(PyExc_TypeError, "resume takes 2 arguments");
  struct hmk_link *link = PyLong_AsVoidPtr(arguments[0]);
  Py_buffer payload;
  int64_t status;
  if (PyErr_Occurred() || PyObject_GetBuffer(arguments[1], &payload, PyBUF_SIMPLE)) return NULL;
  link->message.in = payload.buf;
  Py_BEGIN_ALLOW_THREADS;
  status = hmk_resume(link, &link->message);
  Py_END_ALLOW_THREADS;
  PyBuffer_Release(&payload);
  return outcome(link, status, link->message.returns);
}

/* The status says what to do next, which is Python's affair: settle(status, the arguments of the call ...). */
static PyObject *settle(PyObject *how, PyObject *status, struct hmk_link *link, PyObject *const *arguments) {
  PyObject *all[PORT_ARGUMENTS + 2] = {NULL, status};
  for (int i = 0; i < PORT_ARGUMENTS; i++) all[i + 2] = arguments[i];
  PyObject *reply = PyObject_Vectorcall(how, all + 1, (PORT_ARGUMENTS + 1) | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
  /* A signal's handler may have raised before the first statement of `how`. */
  if (!reply) hmk_cancel(link);
  return reply;
}

/* The `call` of a port (corekernel.port.Port). `self` is (address of its struct hmk_port, call, settle): the thread that
 * called last has its link at hand; all else is done by `call`, in Python. */
static PyObject *port_call(PyObject *self, PyObject *const *arguments, Py_ssize_t count, PyObject *names) {
  struct hmk_port *port = PyLong_AsVoidPtr(PyTuple_GET_ITEM(self, 0));
  if (count != PORT_ARGUMENTS || names || port->thread != PyThreadState_GetID(PyThreadState_Get()) ||
      port->link->special)
    return PyObject_Vectorcall(PyTuple_GET_ITEM(self, 1), arguments, (size_t)count, names);
  struct hmk_link *link = port->link; /* the thread's own for as long as it runs */
  PyObject *reply = issue(link, arguments);
  if (!reply || !PyLong_CheckExact(reply)) return reply;
  PyObject *settled = settle(PyTuple_GET_ITEM(self, 2), reply, link, arguments);
  Py_DECREF(reply);
  return settled;
}

static PyMethodDef port_method = {"call", (PyCFunction)(void (*)(void))port_call, METH_FASTCALL | METH_KEYWORDS,
                                  NULL};

/* caller(address of a struct hmk_port, call, settle) -> what calls on that port */
static PyObject *caller(PyObject *self, PyObject *arguments) {
  (void)self;
  if (PyTuple_GET_SIZE(arguments) != 3 || !PyLong_Check(PyTuple_GET_ITEM(arguments, 0)))
    return PyErr_Format(PyExc_TypeError, "caller takes an address and two functions");
  return PyCFunction_New(&port_method, arguments);
}

/* remember(address of a struct hmk_port, address of a link): the link of the calling thread, while it lives */
static PyObject *remember(PyObject *self, PyObject *arguments) {
  PyObject *port, *link;
  (void)self;
  if (!PyArg_ParseTuple(arguments, "O!O!", &PyLong_Type, &port, &PyLong_Type, &link)) return NULL;
  struct hmk_port *at = PyLong_AsVoidPtr(port);
  at->link = PyLong_AsVoidPtr(link);
  at->thread = PyThreadState_GetID(PyThreadState_Get());
  Py_RETURN_NONE;
}

static PyMethodDef remember_method = {"remember", remember, METH_VARARGS, NULL};
static PyMethodDef caller_method = {"caller", caller, METH_VARARGS, NULL};
static PyMethodDef issue_method = {"issue", (PyCFunction)(void (*)(void))issue_on, METH_FASTCALL, NULL};
static PyMethodDef resume_method = {"resume", (PyCFunction)(void (*)(void))resume, METH_FASTCALL, NULL};

static int put(PyObject *module, const char *name, PyMethodDef *method) {
  PyObject *function = PyCFunction_New(method, NULL);
  int failed = !function || PyObject_SetAttrString(module, name, function);
  Py_XDECREF(function);
  return failed;
}

static int install(PyObject *module) {
  if (put(module, "_issue", &issue_method) || put(module, "_resume", &resume_method) ||
      put(module, "_caller", &caller_method) || put(module, "_remember", &remember_method))
    return -1;
  bindings = PyObject_GetAttrString(module, "_bindings");
  failed = PyObject_GetAttrString(module, "_failed");
  nothing = PyObject_GetAttrString(module, "EMPTY");
  no_registers = PyTuple_New(0);
  no_payload = PyBytes_FromStringAndSize(NULL, 0);
  return bindings && failed && nothing && no_registers && no_payload ? 0 : -1;
}

/* Tie this code to corekernel.dispatcher, which calls this once when it is imported. 0, or -1. */
int hmk_python_open(void) {
  PyGILState_STATE held = PyGILState_Ensure();
  PyObject *module = PyImport_ImportModule("corekernel.dispatcher");
  int result = module ? install(module) : -1;
  if (result) PyErr_Print();
  Py_XDECREF(module);
  PyGILState_Release(held);
  return result;
}

/* ---- handlers ---- */

/* The life of a thread that will run Python handlers begins: a thread state, and the key it is known by. */
void hmk_python_begin(struct hmk_carrier *carrier) {
  PyGILState_Ensure();
  carrier->python_key = PyLong_FromUnsignedLong(carrier->context.carrier);
  carrier->python_state = PyEval_SaveThread();
}

void hmk_python_end(struct hmk_carrier *carrier) {
  PyEval_RestoreThread(carrier->python_state);
  Py_XDECREF((PyObject *)carrier->python_key);
  PyGILState_Release(PyGILState_UNLOCKED);
}

static PyObject *payload_of(const struct hmk_context *context, PyObject *caller) {
  if (!context->in_length) return Py_NewRef(no_payload);
  if (!context->in_bulk) return PyBytes_FromStringAndSize(context->in, context->in_length);
  /* A slice of the mapping's own view: a handler that keeps it keeps the mapping. */
  PyObject *view = PyObject_GetAttrString(caller, "bulk");
  PyObject *slice = view ? PySequence_GetSlice(view, 0, context->in_length) : NULL;
  Py_XDECREF(view);
  return slice;
}

static PyObject *call(PyObject *binding, const struct hmk_context *context) {
  PyObject *caller = PyTuple_GET_ITEM(binding, 0);
  PyObject *operation = PyLong_FromUnsignedLong(context->operation);
  PyObject *handler = operation ? PyDict_GetItemWithError(PyTuple_GET_ITEM(binding, 1), operation) : NULL;
  PyObject *arguments[] = {NULL, caller, registers_of(context->args, context->registers),
                           payload_of(context, caller)};
  PyObject *result = NULL;
  if (!handler && operation && !PyErr_Occurred()) PyErr_SetObject(PyExc_KeyError, operation);
  if (handler && arguments[2] && arguments[3])
    result = PyObject_Vectorcall(handler, arguments + 1, 3 | PY_VECTORCALL_ARGUMENTS_OFFSET, NULL);
  Py_XDECREF(operation);
  Py_XDECREF(arguments[2]);
  Py_XDECREF(arguments[3]);
  return result;
}

/* Put a reply, (registers, payload), into the context; its status. */
static int64_t answer(struct hmk_context *context, PyObject *reply) {
  Py_buffer payload;
  if (reply == nothing) return HMK_OK;
  if (!PyTuple_Check(reply) || PyTuple_GET_SIZE(reply) != 2) {
    PyErr_SetString(PyExc_TypeError, "a handler returns registers and a payload");
    return HMK_E_FAULT;
  }
  int count = words_of(PyTuple_GET_ITEM(reply, 0), context->rets);
  if (count < 0 || PyObject_GetBuffer(PyTuple_GET_ITEM(reply, 1), &payload, PyBUF_SIMPLE)) return HMK_E_FAULT;
  int64_t status = HMK_OK;
  context->returns = (uint32_t)count;
  if (payload.len > UINT32_MAX || (payload.len && hmk_reply(context, payload.buf, (uint32_t)payload.len))) {
    context->returns = 1;
    context->rets[0] = (uint64_t)payload.len;
    status = HMK_E_NO_BUFFER;
  }
  PyBuffer_Release(&payload);
  return status;
}

/* The handler raised: Python decides what that means, as a status and a text for the caller. */
static int64_t failure(struct hmk_context *context, PyObject *key) {
  PyObject *kind, *error, *trace;
  PyErr_Fetch(&kind, &error, &trace);
  PyErr_NormalizeException(&kind, &error, &trace);
  if (trace && error) PyException_SetTraceback(error, trace);
  PyObject *said = PyObject_CallFunction(failed, "OiO", key, (int)context->operation, error ? error : Py_None);
  Py_XDECREF(kind);
  Py_XDECREF(error);
  Py_XDECREF(trace);
  int64_t status = HMK_E_FAULT;
  const char *text;
  Py_ssize_t length;
  long long number;
  if (said && PyArg_ParseTuple(said, "Ly#", &number, &text, &length)) {
    status = number;
    context->returns = 0;
    hmk_reply(context, text, length > HMK_INLINE ? HMK_INLINE : (uint32_t)length);
  }
  Py_XDECREF(said);
  if (PyErr_Occurred())
    PyErr_WriteUnraisable(failed); /* out of memory, recursion: the call fails, the service lives */
  return status;
}

static int64_t handle(struct hmk_context *context, PyObject *key) {
  PyObject *binding = PyDict_GetItemWithError(bindings, key);
  if (!binding) {
    PyErr_Clear();
    return HMK_E_FAULT;
  }
  Py_INCREF(binding); /* the control thread may replace it meanwhile */
  PyObject *reply = call(binding, context);
  int64_t status = reply ? answer(context, reply) : HMK_E_FAULT;
  if (PyErr_Occurred()) status = failure(context, key);
  Py_XDECREF(reply);
  Py_DECREF(binding);
  return status;
}

/* Run one handler. A carrier holds the interpreter's lock already (hmk_python_enter); a thread that serves a nested
 * call gave it up when it called out. */
int64_t hmk_python_handler(struct hmk_context *context) {
  if (context->owner) {
    PyObject *own = PyLong_FromUnsignedLong(context->carrier);
    int64_t status = own ? handle(context, own) : HMK_E_FAULT;
    Py_XDECREF(own);
    return status;
  }
  PyGILState_STATE held = PyGILState_Ensure();
  PyObject *key = PyLong_FromUnsignedLong(context->carrier);
  int64_t status = key ? handle(context, key) : HMK_E_FAULT;
  Py_XDECREF(key);
  PyGILState_Release(held);
  return status;
}
