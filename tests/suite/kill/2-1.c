// Cannot be built, on purpose.
int main(void) { return no_such_name; }
